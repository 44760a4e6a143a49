"""Layer-wise contrastive knowledge distillation on graphs, with personal imitation weights.

LWC-KD: "Graph Structure Aware Contrastive Knowledge Distillation for Incremental Learning in Recommender Systems"
(Wang et al., CIKM 2021). PIW: "Structure Aware Incremental Learning with Personalized Imitation Weights for
Recommender Systems" (Wang et al., AAAI 2023). Both as used by Lee et al., KDD 2024.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor

_EPSILON = 1e-8


def neighbour_distillation(target: Tensor, neighbours: Tensor, adjacency: Tensor, temperature: float) -> Tensor:
    """Mean log-probability that each old embedding gives to its present neighbours (LWC-KD, CIKM 2021).

    ``l_b = sum_j r_bj log softmax_j(<target_b, neighbour_j> / T) / sum_j r_bj``; the loss is ``-l``, averaged by the
    caller. Beside the ``(B, N)`` scores nothing of that size is made: the sum over neighbours is one sparse product.

    Args:
        target: embeddings before the update, float ``(B, D)``.
        neighbours: present embeddings of all the candidates, float ``(N, D)``.
        adjacency: 0/1 rows of the targets, dense or sparse ``(B, N)``.
        temperature: T, positive.

    Returns:
        Float ``(B,)``, not positive; 0 for a row without neighbours.

    >>> neighbour_distillation(torch.ones(1, 1), torch.zeros(4, 1), torch.tensor([[1.0, 0.0, 0.0, 1.0]]), 5.0)
    tensor([-1.3863])
    """
    dtype = torch.promote_types(target.dtype, torch.float32)
    links = adjacency if adjacency.layout == torch.strided else adjacency.to_sparse()
    target, neighbours, links = target.to(dtype) / temperature, neighbours.to(dtype), links.to(dtype)
    degree = links.sum(-1)
    degree = degree.to_dense() if degree.is_sparse else degree
    with torch.autocast(target.device.type, enabled=False):
        linked = (target * (links @ neighbours)).sum(-1)
        normaliser = (target @ neighbours.T).logsumexp(-1)
    return (linked - degree * normaliser) / (degree + _EPSILON)


def cluster_affinity(embeddings: Tensor, clusters: Tensor, transforms: Tensor) -> Tensor:
    """Soft membership of each embedding in each cluster, ``softmax_k <x, cluster_k^T M_k>`` (PIW, AAAI 2023).

    Args:
        embeddings: float ``(B, D)``.
        clusters: cluster centres, float ``(C, D)``.
        transforms: matrix M_k of each cluster, float ``(C, D, D)``.

    Returns:
        Float ``(B, C)``, rows sum to 1.

    >>> cluster_affinity(torch.zeros(1, 2), torch.ones(2, 2), torch.ones(2, 2, 2))
    tensor([[0.5000, 0.5000]])
    """
    projected = torch.einsum("kd,kde->ke", clusters, transforms)
    return (embeddings @ projected.T).softmax(-1)


def cluster_loss(item_embeddings: Tensor, clusters: Tensor, dof: float) -> Tensor:
    """Self-training divergence of deep embedded clustering (Xie et al., ICML 2016, eq. 1-3), mean over items.

    Only the clusters learn: no gradient flows to the items, nor through the target distribution.

    Args:
        item_embeddings: float ``(I, D)``.
        clusters: cluster centres, float ``(C, D)``.
        dof: degrees of freedom of Student's t kernel, positive.

    Returns:
        Scalar.

    >>> cluster_loss(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0]]), dof=1)
    tensor(0.0437)
    """
    # The kernel that takes no detour over inner products keeps its digits where items lie close to a centre.
    mode = "donot_use_mm_for_euclid_dist"
    distance = torch.cdist(item_embeddings.detach(), clusters, compute_mode=mode).square()
    kernel = (-(dof + 1) / 2 * (distance / dof).log1p()).exp()
    soft = kernel / (kernel.sum(-1, keepdim=True) + _EPSILON)
    with torch.no_grad():
        sharp = soft.square() / (soft.sum(0) + _EPSILON)
        sharp /= sharp.sum(-1, keepdim=True) + _EPSILON
    return (torch.xlogy(sharp, sharp) - sharp * (soft + _EPSILON).log()).sum() / item_embeddings.shape[0]


def importance_weights(state: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """Personal imitation weights (PIW, AAAI 2023): how much each user should imitate its past, with mean 1.

    To be multiplied with the users' losses element by element.

    Args:
        state: change of each user's cluster membership, float ``(B, C)``.
        w1: float ``(H, C)``.
        b1: float ``(H,)``.
        w2: float ``(1, H)``.
        b2: float ``(1,)``.

    Returns:
        Float ``(B,)``, not negative, summing to B.

    >>> importance_weights(torch.rand(2, 3), torch.zeros(4, 3), torch.zeros(4), torch.zeros(1, 4), torch.zeros(1))
    tensor([1., 1.])
    """
    raw = raw_importance(state, w1, b1, w2, b2)
    return raw / (raw.sum() + _EPSILON) * raw.shape[0]


def raw_importance(state: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """Imitation weights before they are scaled (PIW, AAAI 2023), ``softplus(w2 relu(w1 state + b1) + b2)``.

    Args:
        state: change of each user's cluster membership, float ``(B, C)``.
        w1: float ``(H, C)``.
        b1: float ``(H,)``.
        w2: float ``(1, H)``.
        b2: float ``(1,)``.

    Returns:
        Float ``(B,)``, not negative.

    >>> raw_importance(torch.rand(2, 3), torch.zeros(4, 3), torch.zeros(4), torch.zeros(1, 4), torch.zeros(1))
    tensor([0.6931, 0.6931])
    """
    return nnf.softplus(nnf.linear(nnf.linear(state, w1, b1).relu(), w2, b2)).squeeze(-1)
