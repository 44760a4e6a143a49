from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ccd_lightning.functional import (
    backward_transfer,
    forgetting,
    forward_transfer,
    h_mean,
    learning_average,
    retained_average,
)

LOWER = [learning_average, retained_average, forgetting, backward_transfer]


def random_square(size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=(size, size))


def ragged(square: np.ndarray) -> list[list[float]]:
    return [row[: index + 1].tolist() for index, row in enumerate(square)]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(0, 99))
def test_averages_and_transfers_match_their_definitions(size, seed):
    a = random_square(size, seed)
    blocks = range(size)
    expected = {
        learning_average: [np.mean([a[j][j] for j in range(k + 1)]) for k in blocks],
        retained_average: [np.mean([a[k][j] for j in range(k + 1)]) for k in blocks],
        forgetting: [
            np.mean([max(a[m][j] for m in range(j, k)) - a[k][j] for j in range(k)]) if k else 0.0 for k in blocks
        ],
        backward_transfer: [np.mean([a[k][j] - a[j][j] for j in range(k)]) if k else 0.0 for k in blocks],
    }
    for summary, values in expected.items():
        torch.testing.assert_close(summary(ragged(a)), torch.tensor(values, dtype=torch.float64))
    ahead = [np.mean([a[j - 1][j] for j in range(1, k + 1)]) if k else np.nan for k in blocks]
    torch.testing.assert_close(forward_transfer(a), torch.tensor(ahead, dtype=torch.float64), equal_nan=True)


@pytest.mark.parametrize("summary", LOWER)
def test_summaries_ignore_what_lies_above_the_diagonal(summary):
    square = random_square(4, 0)
    expected = summary(ragged(square))
    with_nan = np.where(np.tri(4, dtype=bool), square, np.nan)
    for matrix in (square, torch.tensor(square), with_nan, square.tolist()):
        torch.testing.assert_close(summary(matrix), expected)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=6), st.integers(0, 99))
def test_blocks_that_ask_nobody_have_no_part_in_the_averages(asks: list[bool], seed: int) -> None:
    """As if the stream's metrics were read off the other blocks alone, for as long as there is one."""
    size = len(asks)
    square = random_square(size, seed)
    square[:, [not asked for asked in asks]] = np.nan
    rows = ragged(square)
    for summary in (learning_average, retained_average):
        found = summary(rows)
        for k in range(size):
            kept = [j for j in range(k + 1) if asks[j]]
            known = [square[j if summary is learning_average else k][j] for j in kept]
            assert found[k] == pytest.approx(np.mean(known), abs=1e-12) if kept else found[k].isnan()
    for summary, best in ((forgetting, True), (backward_transfer, False)):
        found = summary(rows)
        for k in range(size):
            kept = [j for j in range(k) if asks[j]]
            before = [max(square[m][j] for m in range(j, k)) if best else square[j][j] for j in kept]
            changes = [was - square[k][j] if best else square[k][j] - was for was, j in zip(before, kept, strict=True)]
            assert found[k] == pytest.approx(np.mean(changes) if kept else 0.0, abs=1e-12)


def test_forward_transfer_is_nan_from_the_first_missing_entry_on():
    square = random_square(4, 1)
    square[1, 2] = np.nan
    assert forward_transfer(square).isnan().tolist() == [True, False, True, True]


def test_h_mean_works_on_tensors_and_floats():
    learning, retained = torch.tensor([0.1, 0.0, 0.4]), torch.tensor([0.3, 0.0, 0.0])
    expected = torch.tensor([2 / (1 / 0.1 + 1 / 0.3), 0.0, 0.0])
    torch.testing.assert_close(h_mean(learning, retained), expected)
    assert h_mean(0.1, 0.3) == pytest.approx(expected[0].item())
    assert h_mean(0.0, 0.0) == 0.0


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-6, 1), st.floats(1e-6, 1))
def test_h_mean_lies_between_the_smaller_value_and_the_plain_mean(learning, retained):
    value = h_mean(learning, retained)
    assert min(learning, retained) * (1 - 1e-9) <= value <= (learning + retained) / 2 * (1 + 1e-9)


@pytest.mark.parametrize("summary", LOWER)
def test_summaries_reject_matrices_with_missing_entries(summary):
    with pytest.raises(ValueError, match="Found 1 entries in row 1 of the performance matrix, expected at least 2"):
        summary([[0.1], [0.2]])
    with pytest.raises(ValueError, match=r"performance matrix of shape \(2, 3\), expected a square one"):
        summary(torch.zeros(2, 3))
