from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccd_lightning.data.splitting import (
    DROPPED,
    blocks_by_count,
    blocks_by_period,
    k_core,
    split_per_user,
)

pairs = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=80, unique=True)


def columns(rows):
    table = np.array(rows, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


@given(pairs, st.integers(0, 4))
def test_k_core_is_the_fixed_point_of_removing_one_entity_at_a_time(rows, core):
    left = list(rows)
    while True:
        users, items = Counter(u for u, _ in left), Counter(i for _, i in left)
        weak = [(u, i) for u, i in left if users[u] < core or items[i] < core]
        if not weak:
            break
        gone = weak[0][0] if users[weak[0][0]] < core else None
        left = [(u, i) for u, i in left if (u != gone if gone is not None else i != weak[0][1])]
    kept = k_core(*columns(rows), core)
    assert [row for row, keep in zip(rows, kept, strict=True) if keep] == left


@given(st.integers(1, 500), st.floats(0.05, 1), st.integers(0, 9))
def test_blocks_by_count_has_a_base_and_equal_blocks(count, fraction, blocks):
    numbers = blocks_by_count(count, fraction, blocks)
    assert len(numbers) == count
    assert (np.diff(numbers) >= 0).all()
    if not blocks:
        assert not numbers.any()
        return
    sizes = np.bincount(numbers, minlength=blocks + 1)
    assert sizes[0] == int(count * fraction)
    assert len(sizes) == blocks + 1
    assert sizes[1:].max() - sizes[1:].min() <= 1


def test_blocks_by_count_gives_the_papers_fractions():
    assert np.bincount(blocks_by_count(1000, 0.5, 5)).tolist() == [500, 100, 100, 100, 100, 100]


def test_blocks_by_period_follows_the_calendar():
    days = ["2024-01-30", "2024-01-31", "2024-02-01", "2024-02-29", "2024-03-01"]
    times = pl.Series(days).str.to_datetime()
    assert blocks_by_period(times, "1mo", "log.csv").tolist() == [0, 0, 1, 1, 2]
    assert blocks_by_period(times, "1q", "log.csv").tolist() == [0] * 5


def test_blocks_by_period_names_an_empty_period():
    times = pl.Series(["2024-01-30", "2024-03-01"]).str.to_datetime()
    with pytest.raises(ValueError, match=r"log.csv: the period of 1mo from 2024-02-01 00:00:00 has no interaction"):
        blocks_by_period(times, "1mo", "log.csv")


@pytest.mark.parametrize("period", ["a month", "", "0d"])
def test_blocks_by_period_refuses_what_is_no_duration(period):
    with pytest.raises(ValueError, match=f"`period` is '{period}', which is no length of time"):
        blocks_by_period(pl.Series(["2024-01-30"]).str.to_datetime(), period, "log.csv")


class FixedShuffle:
    """Gives the numbers by which rows are shuffled, so that another implementation can shuffle alike."""

    def __init__(self, keys):
        self.keys = keys

    def random(self, size):
        assert size == len(self.keys)
        return self.keys


def split_by_hand(rows, keys):
    parts = {"train": [], "valid": [], "test": []}
    for user in {user for user, _ in rows}:
        own = [row for _, row in sorted((keys[n], row) for n, row in enumerate(rows) if row[0] == user)]
        m = max(len(own) // 10, 1)
        parts["test"] += own[:m]
        parts["valid"] += own[m : 2 * m]
        parts["train"] += own[2 * m :]
    learned = {item for _, item in parts["train"]}
    for name in ("valid", "test"):
        parts[name] = [row for row in parts[name] if row[1] in learned]
    both = {user for user, _ in parts["valid"]} & {user for user, _ in parts["test"]}
    for name in ("valid", "test"):
        parts[name] = [row for row in parts[name] if row[0] in both]
    return {name: set(chosen) for name, chosen in parts.items()}


many_pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=120, unique=True)


@given(many_pairs, st.integers(0, 2**32))
@settings(deadline=None)
def test_split_per_user_equals_a_loop_over_users(rows, seed):
    keys = np.random.default_rng(seed).random(len(rows))
    splits = split_per_user(*columns(rows), FixedShuffle(keys))
    expected = split_by_hand(rows, keys)
    for code, name in enumerate(("train", "valid", "test")):
        assert {row for row, split in zip(rows, splits, strict=True) if split == code} == expected[name]
    assert set(splits) <= {DROPPED, 0, 1, 2}


@pytest.mark.parametrize(("count", "held"), [(3, 1), (19, 1), (20, 2), (39, 3)])
def test_split_per_user_holds_out_a_tenth_for_each_purpose(count, held):
    items = np.tile(np.arange(count), 30)
    users = np.repeat(np.arange(30), count)
    splits = split_per_user(users, items, np.random.default_rng(0))
    per_user = np.stack([np.bincount(users[splits == code], minlength=30) for code in (0, 1, 2)])
    assert (per_user == np.array([[count - 2 * held], [held], [held]])).all()


def test_split_per_user_gives_nothing_to_learn_from_one_or_two_items():
    splits = split_per_user(np.array([0, 1, 1]), np.array([0, 0, 1]), np.random.default_rng(0))
    assert splits.tolist() == [DROPPED] * 3
