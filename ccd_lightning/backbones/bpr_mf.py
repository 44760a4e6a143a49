"""Matrix factorisation with Bayesian personalised ranking."""

from __future__ import annotations

from ccd_lightning.backbones.base import EmbeddingBackbone


class BPRMF(EmbeddingBackbone):
    """Matrix factorisation under the BPR loss (Rendle et al., UAI 2009).

    Args:
        dim: dimensions of an embedding.

    >>> import torch
    >>> model = BPRMF(dim=4)
    >>> model.grow(3, 5, torch.Generator().manual_seed(0))
    >>> model.scores(torch.tensor([0, 2])).shape
    torch.Size([2, 5])
    """

    row_by_row = True
