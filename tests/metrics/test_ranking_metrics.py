from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ccd_lightning.metrics import RankingMetrics

KS = (1, 3, 8)


def users(seed: int, number: int = 12) -> tuple[Tensor, Tensor]:
    """Ranked lists of 6 of 15 items, some of which end early, and padded ground truth."""
    generator = torch.Generator().manual_seed(seed)
    ranked = torch.rand(number, 15, generator=generator).argsort(1)[:, :6]
    ranked[torch.rand(number, generator=generator) < 0.3, 4:] = -1
    truth = torch.rand(number, 15, generator=generator).argsort(1)[:, :4]
    truth[torch.rand(number, generator=generator) < 0.5, 2:] = -1
    return ranked, truth


def brute_force(ranked: Tensor, truth: Tensor, unknown: int) -> dict[str, float]:
    sums = {f"{name}@{k}": 0.0 for name in ("recall", "ndcg", "hit_rate") for k in KS}
    for row, wanted in zip(ranked.tolist(), truth.tolist(), strict=True):
        goal = {item for item in wanted if item >= 0}
        for k in KS:
            hits = [place for place, item in enumerate(row[:k]) if item in goal]
            ideal = sum(1 / math.log2(place + 2) for place in range(min(k, len(goal))))
            sums[f"recall@{k}"] += len(hits) / len(goal)
            sums[f"ndcg@{k}"] += sum(1 / math.log2(place + 2) for place in hits) / ideal
            sums[f"hit_rate@{k}"] += bool(hits)
    count = len(ranked) + unknown
    return {**{name: value / count for name, value in sums.items()}, "users": count, "unknown_users": unknown}


def values(metric: RankingMetrics) -> dict[str, float]:
    return {name: float(value) for name, value in metric.compute().items()}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.lists(st.integers(0, 12), max_size=4), st.integers(0, 3))
def test_metrics_equal_brute_force_however_the_batches_are_cut(seed, cuts, unknown):
    ranked, truth = users(seed)
    metric = RankingMetrics(KS)
    metric.update(ranked[:0], truth[:0], unknown)
    for start, stop in pairwise([0, *sorted(cuts), 12]):
        metric.update(ranked[start:stop], truth[start:stop])
    assert values(metric) == pytest.approx(brute_force(ranked, truth, unknown), abs=1e-12)


def test_nobody_asked_is_no_metric_and_somebody_unknown_is_zero():
    ranked, truth = users(0)
    metric = RankingMetrics(KS)
    metric.update(ranked[:0], truth[:0])
    found = values(metric)
    assert found.pop("users") == found.pop("unknown_users") == 0
    assert all(math.isnan(value) for value in found.values())
    metric.update(ranked[:0], truth[:0], unknown=1)
    assert values(metric) == pytest.approx(brute_force(ranked[:0], truth[:0], 1), abs=0)


def test_sums_of_two_processes_equal_those_of_one():
    ranked, truth = users(1)
    parts = [RankingMetrics(KS), RankingMetrics(KS)]
    for part, rows in zip(parts, (slice(0, 5), slice(5, 12)), strict=True):
        part.update(ranked[rows], truth[rows], unknown=2)
    together = RankingMetrics(KS)
    for name, reduction in together._reductions.items():
        stacked = torch.stack([getattr(part, name) for part in parts])
        setattr(together, name, reduction(stacked))
        assert getattr(together, name).dtype == getattr(parts[0], name).dtype
    together._update_count = 1
    assert values(together) == pytest.approx(brute_force(ranked, truth, 4), abs=1e-12)


def test_unknown_users_count_after_a_first_result_too():
    ranked, truth = users(2)
    metric = RankingMetrics(KS)
    metric.update(ranked, truth)
    before = values(metric)
    metric.update(ranked[:0], truth[:0], unknown=12)
    assert values(metric)["recall@3"] == pytest.approx(before["recall@3"] / 2)
    assert values(metric)["unknown_users"] == 12


def test_reset_forgets():
    metric = RankingMetrics(KS)
    metric.update(*users(3), unknown=3)
    metric.reset()
    metric.update(*users(4))
    assert values(metric) == pytest.approx(brute_force(*users(4), 0), abs=1e-12)


@pytest.mark.parametrize("ks", [(), (0,), (20, -1)])
def test_ranking_metrics_refuse_cut_offs_that_are_not_positive(ks):
    with pytest.raises(ValueError, match=r"`ks` is \[.*\], but cut-offs are positive"):
        RankingMetrics(ks)
