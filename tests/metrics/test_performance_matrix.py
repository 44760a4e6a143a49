from __future__ import annotations

import pytest

from ccd_lightning.metrics import PerformanceMatrix

ROWS = [[0.4], [0.3, 0.5], [0.1, 0.5, 0.6]]


def filled() -> PerformanceMatrix:
    matrix = PerformanceMatrix()
    for block, row in enumerate(ROWS):
        ahead = {"recall": 0.05 * (block + 1), "ndcg": 0.0} if block < 2 else None
        matrix.append(block, [{"recall": value, "ndcg": value / 2} for value in row], ahead)
    return matrix


def test_summary_holds_the_matrix_and_its_curves():
    found = filled().summary()
    recall = found["recall"]
    assert recall["A"] == ROWS
    assert recall["LA"] == pytest.approx([0.4, 0.45, 0.5])
    assert recall["RA"] == pytest.approx([0.4, 0.4, 0.4])
    assert recall["H"] == pytest.approx([0.4, 2 * 0.45 * 0.4 / 0.85, 2 * 0.5 * 0.4 / 0.9])
    assert recall["forgetting"] == pytest.approx([0.0, 0.1, (0.3 + 0.0) / 2])
    assert recall["backward_transfer"] == pytest.approx([0.0, -0.1, (-0.3 + 0.0) / 2])
    assert recall["forward_transfer"] == [pytest.approx(0.05), pytest.approx(0.1), None]
    assert found["ndcg"]["LA"] == pytest.approx([0.2, 0.225, 0.25])


def test_a_row_that_is_measured_again_replaces_itself_and_later_ones():
    matrix = filled()
    matrix.append(1, [{"recall": 0.2, "ndcg": 0.0}, {"recall": 0.7, "ndcg": 0.0}])
    assert matrix.summary()["recall"]["A"] == [[0.4], [0.2, 0.7]]
    assert matrix.summary()["recall"]["forward_transfer"] == [pytest.approx(0.05), None]


def test_state_round_trip_is_exact():
    restored = PerformanceMatrix()
    restored.load_state_dict(filled().state_dict())
    assert restored.summary() == filled().summary()


def test_matrix_refuses_rows_of_the_wrong_length():
    with pytest.raises(ValueError, match="Row 1 of a performance matrix needs 2 entries, but got 1: one a block"):
        filled().append(1, [{"recall": 0.1}])


def test_matrix_refuses_rows_out_of_order():
    with pytest.raises(ValueError, match="Row 1 was given, but only 0 rows stand: measure the blocks in order"):
        PerformanceMatrix().append(1, [{"recall": 0.1}, {"recall": 0.2}])
