"""An auto-encoder teacher keeps its old output distribution where old users meet old items."""

from __future__ import annotations

import torch
from torch import Tensor

from ccd_lightning import functional as F
from ccd_lightning.backbones import Backbone, evaluating
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.objectives.base import Objective
from ccd_lightning.types import UserBatch


class OutputImitation(Objective):
    """KL divergence from the old to the present output distribution on common interactions, mean over the batch's rows.

    For an old user u with common interactions C_u (old items that u has interacted with), both distributions over the
    old items: the sum over i in C_u of p_old(i) log(p_old(i) / p(i)), plus the same for all the other old items as one
    outcome (paper, teacher update of auto-encoders). Without that last outcome it would be no divergence: it would fall
    below 0, and reward more mass on C_u than the old model gave.

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
        with evaluating(self.old), torch.no_grad():
            before = self.old.scores(users).log_softmax(-1)
        present = backbone.scores(users)[:, : self.old.num_items].log_softmax(-1)
        rows, items = self.common.of(users)
        inside = items < self.old.num_items
        pairs = (rows[inside], items[inside])
        one_by_one = before[pairs].exp() * (before[pairs] - present[pairs])
        return (one_by_one.sum() + _others(before, present, pairs).sum()) / batch.global_size


def _others(before: Tensor, present: Tensor, pairs: tuple[Tensor, Tensor]) -> Tensor:
    """The divergence's part of what lies outside ``pairs``, taken as one outcome of each row, float ``(B, 1)``."""
    inside = torch.zeros_like(before, dtype=torch.bool)
    inside[pairs] = True
    old, new = (F.sampled_logsumexp(rows, rows.shape[1], inside) for rows in (before, present))
    return torch.where(old > -torch.inf, old.exp() * (old - new), 0.0)
