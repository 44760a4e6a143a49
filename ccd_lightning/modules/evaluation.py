"""From scores to the metrics of a block."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from ccd_lightning.metrics import RankingMetrics
from ccd_lightning.types import BlockTargets

GROUPS = ("all", "new_users", "new_items")
"""Whose recommendations are measured: everybody's, those of the block's new users, hits of the block's new items."""


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Let scores to rank by be what they are, in whatever mixed precision a model learns: in bfloat16 near neighbours tie.

    Args:
        device: where they are computed.
    """
    return torch.autocast(device.type, enabled=False)


def rank_block(scores: Tensor, targets: BlockTargets, depth: int) -> tuple[Tensor, Tensor]:
    """Rank the catalogue for the users whom one block asks about, without the block's masked items.

    Args:
        scores: of all the batch's users, float ``(B, I)``.
        targets: what the block asks; items beyond the scores' columns are unknown to the model and stay misses.
        depth: places to rank.

    Returns:
        item ids, best first, int64 ``(R, min(depth, I))``, -1 where nothing is left; ground truth, int64 ``(R, G)``.
    """
    rows = scores.index_select(0, targets.positions)
    known = targets.masked_items < rows.shape[1]
    rows[targets.masked_rows[known], targets.masked_items[known]] = -torch.inf
    rows.nan_to_num_(nan=-torch.inf, neginf=-torch.inf)
    values, items = rows.topk(min(depth, rows.shape[1]))
    return items.masked_fill(values == -torch.inf, -1), targets.truth


class BlockMetrics(nn.Module):
    """Metrics of one model on one block, for each group.

    Args:
        ks: cut-offs.
    """

    def __init__(self, ks: Sequence[int]) -> None:
        super().__init__()
        self.depth = max(ks)
        self.groups = nn.ModuleDict({group: RankingMetrics(ks) for group in GROUPS})

    def update(self, scores: Tensor, targets: BlockTargets, num_known: int) -> None:
        """Add a batch.

        Args:
            scores: of the batch's first rows, whose users the model knows, float ``(num_known, I)``.
            targets: what the block asks.
            num_known: users of the batch that the model knows; they come first, since ids grow with the stream.
        """
        known = targets.positions < num_known
        ranked, truth = rank_block(scores, _known_rows(targets, known), self.depth)
        new = targets.new_users
        new_truth = targets.truth.masked_fill(targets.truth < targets.first_new_item, -1)
        asks_new = (new_truth >= 0).any(-1)
        for group, asked, wanted in (
            ("all", torch.ones_like(new), truth),
            ("new_users", new, truth),
            ("new_items", asks_new, new_truth[known]),
        ):
            present = asked[known]
            self._group(group).update(ranked[present], wanted[present], int((asked & ~known).sum()))

    def compute(self) -> dict[str, dict[str, float]]:
        """For each group the metrics over all processes, with the counts of users and of unknown users."""
        return {group: {name: float(value) for name, value in self._group(group).compute().items()} for group in GROUPS}

    def _group(self, name: str) -> RankingMetrics:
        metric = self.groups[name]
        assert isinstance(metric, RankingMetrics)
        return metric


def _known_rows(targets: BlockTargets, known: Tensor) -> BlockTargets:
    if bool(known.all()):
        return targets
    kept = known.cumsum(0) - 1
    inside = known[targets.masked_rows]
    return targets._replace(
        positions=targets.positions[known],
        truth=targets.truth[known],
        masked_rows=kept[targets.masked_rows[inside]],
        masked_items=targets.masked_items[inside],
        new_users=targets.new_users[known],
    )
