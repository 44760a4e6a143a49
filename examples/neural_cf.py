"""A backbone that is no product of embeddings: neural collaborative filtering (He et al., WWW 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ccd_lightning.backbones import Backbone
from ccd_lightning.functional import bpr_loss, gather_rows
from ccd_lightning.types import RankingBatch, Side


class NeuralCF(Backbone):
    """A user's and an item's rows go through a small network; its output is the score.

    Args:
        dim: width of a row.
        hidden: width of the hidden layer.
    """

    def __init__(self, dim: int = 16, hidden: int = 32) -> None:
        super().__init__()
        self.add_rows("users", Side.USER, dim)
        self.add_rows("items", Side.ITEM, dim)
        self.of_user, self.of_item = nn.Linear(dim, hidden), nn.Linear(dim, hidden, bias=False)
        self.out = nn.Linear(hidden, 1, bias=False)

    def pair_scores(self, users: Tensor, items: Tensor) -> Tensor:
        user, item = self.of_user(gather_rows(self.users, users)), self.of_item(gather_rows(self.items, items))
        return self.out(torch.relu(user + item)).squeeze(-1)

    def scores(self, users: Tensor) -> Tensor:
        user, item = self.of_user(gather_rows(self.users, users)), self.of_item(self.items)
        return self.out(torch.relu(user.unsqueeze(1) + item)).squeeze(-1)

    def loss(self, batch: RankingBatch) -> Tensor:
        rows = batch.users.unsqueeze(-1).expand_as(batch.negatives)
        return bpr_loss(self.pair_scores(batch.users, batch.positives), self.pair_scores(rows, batch.negatives))
