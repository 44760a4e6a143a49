"""Intervals against scipy's own, and against how often they hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ccd_lightning.studies.statistics import estimate, paired_estimate


@pytest.mark.parametrize("count", [2, 3, 10])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_interval_is_that_of_a_t_test(count: int, level: float) -> None:
    values = np.random.default_rng(count).normal(0.1, 0.01, count)
    found = estimate(values.tolist(), level)
    interval = stats.ttest_1samp(values, 0.0).confidence_interval(level)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((interval.low, interval.high))
    assert found.seeds == count


def test_interval_holds_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 3))
    found = [estimate(row) for row in draws]
    share = np.mean([abs(value.mean - 3.0) <= value.half for value in found])
    assert abs(share - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


def test_a_single_seed_has_no_interval() -> None:
    assert estimate([0.25]).text() == "0.2500"
    assert math.isnan(estimate([0.25]).half)


def test_no_value_is_refused() -> None:
    with pytest.raises(ValueError, match="no value to estimate a mean from: give at least one"):
        estimate([])


def test_pairs_are_of_common_seeds_alone_and_their_interval_is_that_of_the_paired_test() -> None:
    first, second = {0: 0.30, 1: 0.42, 2: 0.37, 5: 9.0}, {2: 0.31, 1: 0.40, 0: 0.29, 4: -7.0}
    found = paired_estimate(first, second)
    assert found is not None
    pairs = [[values[seed] for seed in (0, 1, 2)] for values in (first, second)]
    interval = stats.ttest_rel(*pairs).confidence_interval(0.95)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((interval.low, interval.high))


def test_without_a_common_seed_there_is_no_difference() -> None:
    assert paired_estimate({0: 1.0}, {1: 1.0}) is None
