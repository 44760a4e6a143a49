"""An objective: users lie close to their items on the sphere (the alignment of DirectAU, Wang et al., KDD 2022, equation 4)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from ccd_lightning.backbones import EmbeddingBackbone
from ccd_lightning.functional import gather_rows
from ccd_lightning.objectives import Objective
from ccd_lightning.types import RankingBatch


class Alignment(Objective):
    """Squared distance of the normalised embeddings of each observed pair, summed over the batch.

    Args:
        scale: weight in the stage's loss.
    """

    name = "alignment"

    def __init__(self, scale: float = 0.1) -> None:
        super().__init__()
        self.scale = scale

    def weight(self, epoch: int) -> float:
        return self.scale

    def forward(self, backbone: EmbeddingBackbone, batch: RankingBatch) -> Tensor:
        users, items = (normalize(table, dim=-1) for table in backbone.embeddings())
        return (gather_rows(users, batch.users) - gather_rows(items, batch.positives)).square().sum()
