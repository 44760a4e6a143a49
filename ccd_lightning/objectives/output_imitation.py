"""An auto-encoder teacher keeps its old output distribution where old users meet old items."""

from __future__ import annotations

import torch
from torch import Tensor

from ccd_lightning.backbones import Backbone
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.objectives.base import Objective
from ccd_lightning.types import UserBatch


class OutputImitation(Objective):
    """KL divergence from the old to the present distribution over the old items, on common interactions, mean over the rows.

    For an old user u of the batch with common interactions C_u (old items that u has interacted with):
    sum_{i in C_u} p_old(i) (log p_old(i) - log p(i)), both distributions normalised over the old items (paper, teacher update of
    auto-encoders).

    Args:
        old: the model before the block, frozen; its outputs are computed for each batch, so no (U, I) matrix is kept.
        common: (user, item) pairs of old users and old items.
        weight: weight in the stage's loss.
    """

    name = "output_imitation"
    batch_types = (UserBatch,)

    def __init__(self, old: Backbone, common: PairSet, weight: float = 0.01) -> None:
        super().__init__()
        self.old = old.requires_grad_(False)
        self.common, self.scale = common, weight

    def weight(self, epoch: int) -> float:
        """A constant."""
        return self.scale

    def forward(self, backbone: Backbone, batch: UserBatch) -> Tensor:
        """This process's part of the mean over the batch."""
        users = batch.users[batch.users < self.old.num_users]
        self.common = self.common.to(users.device)
        with torch.no_grad():
            before = self.old.scores(users).log_softmax(-1)
        present = backbone.scores(users)[:, : self.old.num_items].log_softmax(-1)
        rows, items = self.common.of(users)
        inside = items < self.old.num_items
        rows, items = rows[inside], items[inside]
        log_old, log_new = before[rows, items], present[rows, items]
        return (log_old.exp() * (log_old - log_new)).sum() / batch.global_size
