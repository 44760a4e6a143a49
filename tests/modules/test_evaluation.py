from __future__ import annotations

import pytest
import torch

from ccd_lightning.data.loader import EvaluationLoader
from ccd_lightning.modules import GROUPS, BlockMetrics, rank_block
from ccd_lightning.types import BlockTargets, Split

from ..tiny import block, random_pairs

OLD, NEW = (9, 8), (14, 11)
BLOCK = block(1, NEW, OLD, *(random_pairs(NEW, 40, seed) for seed in (3, 4, 5)))


def targets(**changes: object) -> BlockTargets:
    nothing = torch.empty(0, dtype=torch.long)
    plain = BlockTargets(0, torch.tensor([0]), torch.tensor([[2]]), nothing, nothing, torch.tensor([False]), 0)
    return plain._replace(**changes)


def test_rank_block_leaves_out_masked_and_missing_items():
    scores = torch.tensor([[9.0, 8.0, 7.0, 6.0], [0.1, torch.nan, -torch.inf, 0.4]])
    asked = targets(
        positions=torch.tensor([0, 1]),
        truth=torch.tensor([[2], [0]]),
        masked_rows=torch.tensor([0, 0, 1]),
        masked_items=torch.tensor([0, 9, 7]),
    )
    ranked, truth = rank_block(scores, asked, 3)
    assert ranked.tolist() == [[1, 2, 3], [3, 0, -1]]
    assert truth is asked.truth
    assert scores[0, 0] == 9.0


def test_rank_block_is_no_deeper_than_the_catalogue():
    assert rank_block(torch.tensor([[1.0, 2.0]]), targets(), 20)[0].tolist() == [[1, 0]]


def brute_force(scores: torch.Tensor, k: int) -> dict[str, tuple[float, int, int]]:
    """Recall, users and unknown users of each group, one user after the other."""
    lists = {name: {} for name in Split}
    for name, rows in lists.items():
        for user, item in zip(*(column.tolist() for column in BLOCK.split(name)), strict=True):
            rows.setdefault(user, set()).add(item)
    found = {group: [0.0, 0, 0] for group in GROUPS}
    for user, truth in lists[Split.TEST].items():
        goals = {
            "all": truth,
            "new_users": truth if user >= OLD[0] else set(),
            "new_items": {i for i in truth if i >= OLD[1]},
        }
        masked = lists[Split.TRAIN].get(user, set()) | lists[Split.VALID].get(user, set())
        best: list[int] = []
        if user < len(scores):
            order = scores[user].argsort(descending=True).tolist()
            best = [item for item in order if item not in masked][:k]
        for group, goal in goals.items():
            if goal:
                found[group][0] += len(goal & set(best)) / len(goal)
                found[group][1] += 1
                found[group][2] += user >= len(scores)
    return {group: (total / max(users, 1), users, unknown) for group, (total, users, unknown) in found.items()}


@pytest.mark.parametrize("known", [NEW, OLD, (11, 9), (1, 3)])
@pytest.mark.parametrize("batch_size", [3, 50])
def test_block_metrics_equal_brute_force_for_models_that_know_less(known, batch_size):
    scores = torch.randn(known, generator=torch.Generator().manual_seed(0))
    metrics = BlockMetrics((1, 4))
    for batch in EvaluationLoader([BLOCK], Split.TEST, batch_size):
        number = int((batch.users < len(scores)).sum())
        metrics.update(scores[batch.users[:number]], batch.targets[0], number)
    for group, (recall, users, unknown) in brute_force(scores, 4).items():
        found = metrics.compute()[group]
        assert found["recall@4"] == pytest.approx(recall, abs=1e-12)
        assert (found["users"], found["unknown_users"]) == (users, unknown)


def test_groups_without_users_have_no_users():
    metrics = BlockMetrics((2,))
    metrics.update(torch.tensor([[1.0, 2.0, 3.0]]), targets(first_new_item=3), 1)
    found = metrics.compute()
    assert found["all"]["users"] == 1 and found["all"]["recall@2"] == 1.0
    assert found["new_users"]["users"] == found["new_items"]["users"] == 0
