from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ccd_lightning.data.pairs import PairSet, _in_order

from ..tiny import interactions

SHAPE = (5, 7)
PAIRS = st.lists(st.tuples(st.integers(0, SHAPE[0] - 1), st.integers(0, SHAPE[1] - 1)), max_size=40)
few = settings(max_examples=60, deadline=None)


def pair_set(pairs: list[tuple[int, int]], shape: tuple[int, int] = SHAPE) -> PairSet:
    return PairSet.from_interactions(interactions(pairs), *shape)


def as_set(found: PairSet) -> set[tuple[int, int]]:
    return set(zip(found.rows.tolist(), found.columns.tolist(), strict=True))


@few
@given(PAIRS)
def test_pair_set_holds_each_pair_once_in_order(pairs):
    found = pair_set(pairs)
    assert list(zip(found.rows.tolist(), found.columns.tolist(), strict=True)) == sorted(set(pairs))
    assert found.size == len(set(pairs))
    assert found.counts.tolist() == [len({column for row, column in pairs if row == wanted}) for wanted in range(5)]


@few
@given(PAIRS, st.lists(st.integers(0, 8), max_size=6))
def test_of_gives_the_pairs_of_repeated_and_unknown_rows(pairs, rows):
    positions, columns = pair_set(pairs).of(torch.tensor(rows, dtype=torch.long))
    expected = [(place, column) for place, row in enumerate(rows) for r, column in sorted(set(pairs)) if r == row]
    assert list(zip(positions.tolist(), columns.tolist(), strict=True)) == expected


@few
@given(PAIRS, st.lists(st.integers(0, 6), max_size=6), st.lists(st.integers(0, 6), max_size=5, unique=True))
def test_among_gives_the_places_of_the_pairs_in_a_sample_of_the_columns(pairs, rows, sample):
    positions, slots = pair_set(pairs).among(*(torch.tensor(ids, dtype=torch.long) for ids in (rows, sample)))
    expected = [(b, s) for b, row in enumerate(rows) for s, column in enumerate(sample) if (row, column) in pairs]
    assert sorted(zip(positions.tolist(), slots.tolist(), strict=True)) == expected
    assert positions.tolist() == sorted(positions.tolist())


@few
@given(PAIRS)
def test_contains_agrees_with_a_set_inside_and_outside_the_shape(pairs):
    grid = torch.cartesian_prod(torch.arange(7), torch.arange(-2, 10))
    found = pair_set(pairs).contains(grid[:, 0], grid[:, 1])
    assert found.tolist() == [tuple(cell) in set(pairs) for cell in grid.tolist()]


@few
@given(PAIRS, PAIRS, PAIRS)
def test_union_and_transpose_agree_with_sets(first, second, third):
    union = pair_set(first).union(pair_set(second), pair_set(third, (6, 9)))
    assert as_set(union) == {*first, *second, *third}
    assert (union.num_rows, union.num_columns) == (6, 9)
    flipped = union.transpose()
    assert as_set(flipped) == {(column, row) for row, column in as_set(union)}
    assert (flipped.num_rows, flipped.num_columns) == (9, 6)


@few
@given(PAIRS, st.integers(0, 8))
def test_draw_outside_maps_equal_shares_of_the_unit_interval_to_the_free_columns(pairs, row):
    taken = {column for r, column in pairs if r == row}
    free = sorted(set(range(7)) - taken) or list(range(7))
    middles = (torch.arange(len(free), dtype=torch.float64) + 0.5) / len(free)
    edges = torch.stack([middles - 0.49 / len(free), middles + 0.49 / len(free)])
    for points in (middles, *edges):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "rand", lambda *size, points=points, **_: points.reshape(size))
            drawn = pair_set(pairs).draw_outside(torch.tensor([row]), len(free), torch.Generator())
        assert drawn[0].tolist() == free


def test_draw_outside_is_uniform_over_the_free_columns():
    taken = {0: [0, 3, 6], 1: list(range(7)), 2: [], 3: [6], 4: [0, 1, 2, 3, 4, 5]}
    pairs = pair_set([(row, column) for row, columns in taken.items() for column in columns])
    drawn = pairs.draw_outside(torch.arange(6), 20_000, torch.Generator().manual_seed(0))
    for row in range(6):
        free = sorted(set(range(7)) - set(taken.get(row, []))) if row != 1 else list(range(7))
        counts = torch.bincount(drawn[row], minlength=7)
        assert counts.nonzero().squeeze(-1).tolist() == free
        assert len(free) == 1 or chisquare(counts[free].numpy()).pvalue > 1e-4


def test_draw_outside_depends_on_the_generator_alone():
    pairs = pair_set([(0, 1), (2, 3)])
    draws = [pairs.draw_outside(torch.arange(5), 4, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("at_a_time", [1, 7, 64])
def test_draw_outside_is_the_same_however_many_draws_are_made_at_a_time(at_a_time):
    pairs = pair_set([(0, 1), (2, 3), (2, 4), (4, 0)])
    rows = torch.tensor([5, 0, 2, 2, 7, 1, 0, 3, 2, 6, 4])
    whole = pairs.draw_outside(rows, 3, torch.Generator().manual_seed(4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ccd_lightning.data.pairs._CHUNK_DRAWS", at_a_time)
        assert torch.equal(pairs.draw_outside(rows, 3, torch.Generator().manual_seed(4)), whole)


def test_empty_set_without_shape_has_no_pairs():
    nothing = pair_set([], (0, 0))
    assert nothing.size == 0
    assert nothing.of(torch.tensor([0, 3]))[0].numel() == 0
    assert not nothing.contains(torch.tensor([0]), torch.tensor([0])).any()


def test_copies_on_the_same_device_are_the_set_itself():
    pairs = pair_set([(0, 1)])
    assert pairs.to("cpu") is pairs
    assert pairs.__deepcopy__({}) is pairs


def test_a_set_on_another_device_has_its_shape_and_size():
    moved = pair_set([(0, 1), (4, 6)]).to("meta")
    assert (moved.num_rows, moved.num_columns, moved.size) == (5, 7, 2)
    assert moved.columns.device.type == "meta"


@pytest.mark.parametrize(("pair", "kind"), [((5, 0), "row"), ((0, 7), "column"), ((0, -1), "column"), ((-1, 0), "row")])
def test_pair_set_refuses_pairs_outside_its_shape(pair, kind):
    with pytest.raises(ValueError, match=rf"Found {kind}s from .* in a set of . {kind}s: leave padding out"):
        pair_set([(1, 1), pair])


@pytest.mark.parametrize("most", [1, 1000, 2**40, 2**62])
def test_numbers_are_put_in_order_however_large_they_are(most):
    keys = torch.randint(0, most, (5000,), generator=torch.Generator().manual_seed(0))
    ordered, places = _in_order(keys)
    assert torch.equal(ordered, keys.sort().values)
    assert torch.equal(keys[places], ordered)
    assert torch.equal(places.sort().values, torch.arange(len(keys)))
