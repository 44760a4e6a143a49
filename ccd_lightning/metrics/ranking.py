"""Full-ranking metrics with exact sum states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from ccd_lightning import functional as F
from ccd_lightning.distributed import data_group


class RankingMetrics(Metric):
    """Recall@K, NDCG@K and HitRate@K as means over users, from ranked lists that are free of masked items.

    States are sums in float64 and counts, so batches and processes may be split in any way. Users without ground truth
    must be left out; users whom the model does not know enter as 0 through their number alone.

    Args:
        ks: cut-offs K.

    >>> metric = RankingMetrics(ks=(2,))
    >>> metric.update(torch.tensor([[4, 1], [0, 2]]), torch.tensor([[1, 3], [5, -1]]))
    >>> {name: round(float(value), 4) for name, value in metric.compute().items() if "@" in name}
    {'recall@2': 0.25, 'ndcg@2': 0.1934, 'hit_rate@2': 0.5}
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    def __init__(self, ks: Sequence[int] = (20, 50, 100)) -> None:
        super().__init__(process_group=data_group())
        if not ks or min(ks) < 1:
            raise ValueError(
                f"`ks` is {list(ks)}, but cut-offs are positive and at least one is needed, such as [20, 50, 100]."
            )
        self.ks = tuple(ks)
        self.sums: Tensor
        self.users: Tensor
        self.unknown_users: Tensor
        self.add_state("sums", torch.zeros(3, len(self.ks), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("users", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("unknown_users", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, ranked: Tensor, truth: Tensor, unknown: int = 0) -> None:
        """Add users.

        Args:
            ranked: item ids, best first, int64 ``(B, >= max K)``; -1 where a ranking ends.
            truth: ground-truth items, int64 ``(B, G)``, padded with -1, at least one a row.
            unknown: further users with ground truth, whom the model does not know: each counts as 0.
        """
        for column, k in enumerate(self.ks):
            for row, formula in enumerate((F.recall, F.ndcg, F.hit_rate)):
                self.sums[row, column] += formula(ranked, truth, k).sum()
        self.users += ranked.shape[0] + unknown
        self.unknown_users += unknown

    def compute(self) -> dict[str, Tensor]:
        """Means over all the users so far (NaN without any), and the counts ``users`` and ``unknown_users``."""
        means = self.sums / self.users
        names = ("recall", "ndcg", "hit_rate")
        values = {
            f"{name}@{k}": means[row, column] for column, k in enumerate(self.ks) for row, name in enumerate(names)
        }
        return {**values, "users": self.users.clone(), "unknown_users": self.unknown_users.clone()}
