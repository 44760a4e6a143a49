"""Estimates of the time to come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccd_lightning.reporting.remaining import Work, remaining_seconds


def test_remaining_seconds_unknown_before_any_work() -> None:
    assert remaining_seconds([], [Work("base", 5.0)]) is None


def test_remaining_seconds_of_an_unseen_kind_goes_at_the_common_pace() -> None:
    done = [Work("base", 10.0, 20.0), Work("update", 30.0, 20.0)]
    assert remaining_seconds(done, [Work("distillation", 8.0)]) == pytest.approx(8.0 * 40.0 / 40.0)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(1.0, 1e3)), min_size=1), st.floats(0.01, 10.0))
def test_remaining_seconds_at_a_constant_pace_is_proportional(work: list[tuple[str, float]], pace: float) -> None:
    done = [Work("a", 3.0, 3.0 * pace), Work("b", 2.0, 2.0 * pace)]
    ahead = [Work(kind, amount) for kind, amount in work]
    assert remaining_seconds(done, ahead) == pytest.approx(pace * sum(amount for _, amount in work))
