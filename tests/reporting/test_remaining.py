"""Estimates of the time to come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccd_lightning.reporting.remaining import Work, remaining_seconds


def test_remaining_seconds_unknown_before_any_work() -> None:
    assert remaining_seconds([], [Work("base", "student", 5.0)]) is None
    assert remaining_seconds([Work("base", "student", 0.0)], [Work("base", "student", 5.0)]) is None


def test_remaining_seconds_go_by_the_most_similar_work() -> None:
    done = [Work("base", "teacher 0", 10.0, 20.0), Work("base", "teacher 1", 10.0, 50.0)]
    done += [Work("distillation", "student", 30.0, 20.0), Work("update", "teacher 0", 5.0, 40.0)]
    for ahead, pace in (
        (("base", "teacher 1"), 50 / 10),
        (("base", "teacher 2"), 70 / 20),
        (("update", "teacher 1"), 40 / 5),
        (("replay", "student"), 20 / 30),
        (("replay", "teacher 2"), 130 / 55),
    ):
        assert remaining_seconds(done, [Work(*ahead, 8.0)]) == pytest.approx(8.0 * pace)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(1.0, 1e3)), min_size=1), st.floats(0.01, 10.0))
def test_remaining_seconds_at_a_constant_pace_is_proportional(work: list[tuple[str, float]], pace: float) -> None:
    done = [Work("a", "x", 3.0, 3.0 * pace), Work("b", "y", 2.0, 2.0 * pace)]
    ahead = [Work(kind, "z", amount) for kind, amount in work]
    assert remaining_seconds(done, ahead) == pytest.approx(pace * sum(amount for _, amount in work))
