"""A model's own loss on the interactions of a block."""

from __future__ import annotations

import torch
from torch import Tensor

from ccd_lightning.backbones import Backbone
from ccd_lightning.data.loader import BatchSet
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.objectives.base import Objective
from ccd_lightning.types import Interactions, RankingBatch, UserBatch


class OwnLoss(Objective):
    """The backbone's own loss; brings the block's interactions as batches of the kind that the backbone takes.

    Args:
        interactions: train interactions of the block.
        forbidden: pairs that are never drawn as negatives: observed ones and exclusion lists.
        negatives: negatives for each positive.
        kind: kind of batch, the backbone's `batch_type`.
    """

    name = "own"

    def __init__(
        self, interactions: Interactions, forbidden: PairSet, negatives: int, kind: type[RankingBatch] | type[UserBatch]
    ) -> None:
        super().__init__()
        self.interactions, self.forbidden, self.negatives = interactions, forbidden, negatives
        self.kind = kind
        self.batch_types = (kind,)

    def forward(self, backbone: Backbone, batch: RankingBatch | UserBatch) -> Tensor:
        """The backbone's loss."""
        return backbone.loss(batch)

    def batches(self, batch_size: int, generator: torch.Generator) -> BatchSet:
        """The interactions in a new order with new negatives, or the active users in a new order."""
        if self.batch_types == (UserBatch,):
            active = torch.unique(self.interactions.users)
            users = active[torch.randperm(active.numel(), generator=generator)]
            return BatchSet(UserBatch, (users,), batch_size, owner=users)
        # The same order as that of long numbers, in half the memory, which it is drawn all over.
        order = torch.randperm(self.interactions.size, generator=generator, dtype=torch.int32)
        # Several times faster than indexing where the columns outgrow the caches.
        users, items = (column.index_select(0, order) for column in self.interactions)
        negatives = self.forbidden.draw_outside(users, self.negatives, generator)
        return BatchSet(RankingBatch, (users, items, negatives), batch_size, owner=users)
