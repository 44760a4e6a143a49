from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ccd_lightning import distributed
from ccd_lightning.data import loader as loaders
from ccd_lightning.data.loader import BatchSet, EvaluationLoader, StageLoader, UserLoader
from ccd_lightning.modules import BlockMetrics
from ccd_lightning.types import Block, RankingBatch, Split, UserBatch

from ..tiny import block, random_pairs

AsProcess = Callable[[int, int], None]


@pytest.fixture
def as_process(monkeypatch: pytest.MonkeyPatch) -> AsProcess:
    """Makes the loaders believe that they run in one of several processes."""

    def pretend(rank: int, world: int) -> None:
        for module in (loaders, distributed):
            monkeypatch.setattr(module, "world_size", lambda: world)
            monkeypatch.setattr(module, "process_rank", lambda: rank)

    return pretend


def ranking_set(rows: int = 23, batch_size: int = 5, owned: bool = True) -> BatchSet:
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randint(0, 6, (rows,), generator=generator) for _ in range(2))
    negatives = torch.arange(rows)[:, None]
    return BatchSet(RankingBatch, (users, items, negatives), batch_size, users if owned else None)


def rows_of(batch: RankingBatch) -> list[tuple[int, int, int]]:
    return list(zip(batch.users.tolist(), batch.positives.tolist(), batch.negatives[:, 0].tolist(), strict=True))


def test_batch_set_yields_every_row_once_in_order():
    batches = list(ranking_set())
    assert len(batches) == len(ranking_set()) == 5
    assert [batch.global_size for batch in batches] == [5, 5, 5, 5, 3]
    assert [row[2] for batch in batches for row in rows_of(batch)] == list(range(23))


@pytest.mark.parametrize("owned", [True, False])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_each_global_batch_and_keep_a_users_rows_together(as_process, owned, world):
    whole = list(ranking_set(owned=owned))
    parts = []
    for rank in range(world):
        as_process(rank, world)
        parts.append(list(ranking_set(owned=owned)))
        assert len(ranking_set(owned=owned)) == len(whole)
    for batch, *shares in zip(whole, *parts, strict=True):
        assert sorted(row for share in shares for row in rows_of(share)) == sorted(rows_of(batch))
        assert {share.global_size for share in shares} == {batch.global_size}
        if owned:
            owners = [set(share.users.tolist()) for share in shares]
            assert sum(map(len, owners)) == len(set.union(*owners))


def test_stage_loader_yields_one_kind_after_the_other():
    users = BatchSet(UserBatch, (torch.arange(7),), 3)
    loader = StageLoader([ranking_set(), users])
    kinds = [type(batch) for batch in loader]
    assert kinds == [RankingBatch] * 5 + [UserBatch] * 3
    assert len(loader) == 8


def test_batches_move_as_a_whole():
    moved = ranking_set().to("meta")
    assert {column.device.type for column in moved.columns} == {"meta"}
    assert moved.owner is not None and moved.owner.device.type == "meta"


BLOCKS = [
    block(0, (9, 8), (0, 0), *(random_pairs((9, 8), 20, seed) for seed in (0, 1, 2))),
    block(1, (14, 11), (9, 8), *(random_pairs((14, 11), 30, seed) for seed in (3, 4, 5))),
]


def brute_force(split: Split, index: int) -> dict[int, tuple[set[int], set[int]]]:
    """User -> ground truth and masked items of one block."""
    chosen = BLOCKS[index]
    lists: dict[Split, dict[int, set[int]]] = {}
    for name in Split:
        lists[name] = {}
        for user, item in zip(*(column.tolist() for column in chosen.split(name)), strict=True):
            lists[name].setdefault(user, set()).add(item)
    others = [name for name in Split if name is not split]
    return {user: (items, set().union(*(lists[name].get(user, set()) for name in others)))
            for user, items in lists[split].items()}  # fmt: skip


@pytest.mark.parametrize("split", [Split.VALID, Split.TEST])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluation_targets_equal_a_dictionary_of_sets(split, batch_size):
    loader = EvaluationLoader(BLOCKS, split, batch_size)
    seen: dict[int, dict[int, tuple[set[int], set[int]]]] = {0: {}, 1: {}}
    for batch in loader:
        for targets in batch.targets:
            for row, user in enumerate(batch.users[targets.positions].tolist()):
                truth = targets.truth[row]
                masked = targets.masked_items[targets.masked_rows == row]
                assert user not in seen[targets.block]
                seen[targets.block][user] = (set(truth[truth >= 0].tolist()), set(masked.tolist()))
                assert bool(targets.new_users[row]) == (user >= BLOCKS[targets.block].num_old_users)
            assert targets.first_new_item == BLOCKS[targets.block].num_old_items
    assert seen == {index: brute_force(split, index) for index in (0, 1)}


@pytest.mark.parametrize(("world", "batch_size"), [(2, 3), (2, 100), (3, 1), (20, 4)])
def test_processes_evaluate_every_user_once_in_equally_many_batches(as_process, world, batch_size):
    users = EvaluationLoader(BLOCKS, Split.TEST, batch_size).users.tolist()
    batches, known = [], []
    for rank in range(world):
        as_process(rank, world)
        loader = EvaluationLoader(BLOCKS, Split.TEST, batch_size)
        batches.append([batch.users.tolist() for batch in loader])
        assert len(loader) == len(batches[-1])
        known += [user for batch in UserLoader(torch.arange(14), batch_size) for user in batch.tolist()]
    assert len({len(own) for own in batches}) == 1
    assert sorted(user for own in batches for batch in own for user in batch) == users
    assert sorted(known) == list(range(14))


def test_evaluation_of_a_split_without_pairs_has_one_empty_batch():
    (batch,) = EvaluationLoader([block(0, (3, 4), (0, 0), [(0, 0)])], Split.TEST, 2)
    assert batch.users.numel() == 0
    assert batch.targets[0].truth.shape == (0, 0)


def golden_blocks(case: dict[str, Tensor]) -> list[Block]:
    found, old = [], (0, 0)
    # Some ground-truth items lie beyond the ranked ones: the stream knows them, the model does not.
    items = max(int(case[key].max()) for key in case if key.startswith("in_") and key.endswith("_items")) + 1
    for index in range(3):
        splits = [
            zip(*(case[f"in_{name}{index}_{kind}s"].tolist() for kind in ("user", "item")), strict=True)
            for name in ("train", "valid", "test")
        ]
        size = (int(case["in_num_users"][index]), items)
        found.append(block(index, size, old, *splits))
        old = size
    return found


@pytest.mark.parametrize("split", [Split.VALID, Split.TEST])
@pytest.mark.parametrize("variant", ["", "oldmodel_"])
def test_golden_metrics_of_all_blocks_through_loader_and_metrics(golden, split, variant):
    case = golden("block_eval")
    ranked = case["in_sorted_items"]
    places = torch.arange(float(ranked.shape[1])).expand(ranked.shape)
    scores = torch.full((len(ranked), int(ranked.max()) + 1), -torch.inf).scatter_(1, ranked, -places)
    scores = scores[: int(case["in_oldmodel_rows"])] if variant else scores
    ks = case["in_ks"].tolist()
    blocks = golden_blocks(case)
    metrics = [BlockMetrics(ks) for _ in blocks]
    for batch in EvaluationLoader(blocks, split, 4):
        known = int((batch.users < len(scores)).sum())
        for metric, targets in zip(metrics, batch.targets, strict=True):
            metric.update(scores[batch.users[:known]], targets, known)
    for index, metric in enumerate(metrics):
        found = metric.compute()["all"]
        asked = blocks[index].split(split).users.unique()
        assert found["users"] == len(asked)
        assert found["unknown_users"] == int((asked >= len(scores)).sum())
        # The authors leave unknown users out of the mean; here they count as 0.
        share = 1 - found["unknown_users"] / found["users"]
        for name, key in (("recall", "R"), ("ndcg", "N")):
            expected = case[f"out_{variant}{split.value}_{key}"][index]
            for column, k in enumerate(ks):
                assert found[f"{name}@{k}"] == pytest.approx(float(expected[column]) * share, abs=1e-12)
