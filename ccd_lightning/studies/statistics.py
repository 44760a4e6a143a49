"""Means over seeds with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Estimate(NamedTuple):
    """A mean over seeds.

    Attributes:
        mean: of the values.
        half: half the width of the interval; NaN for a single seed.
        seeds: how many values.
    """

    mean: float
    half: float
    seeds: int

    def text(self, digits: int = 4, signed: bool = False) -> str:
        """The mean and half the interval's width; the mean alone for a single seed.

        >>> Estimate(0.10348, 0.0021, 3).text(), Estimate(0.0031, math.nan, 1).text(signed=True)
        ('0.1035 ± 0.0021', '+0.0031')
        """
        mean = f"{self.mean:+.{digits}f}" if signed else f"{self.mean:.{digits}f}"
        return mean if math.isnan(self.half) else f"{mean} ± {self.half:.{digits}f}"


def estimate(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean and Student's t interval, for values that are independent and about normal.

    Args:
        values: one a seed.
        level: how sure the interval is.

    Raises:
        ValueError: without any value.

    >>> estimate([1.0, 2.0, 3.0]).text(2)
    '2.00 ± 2.48'
    """
    if not len(values):
        raise ValueError("There is no value to estimate a mean from: give at least one.")
    count = len(values)
    if count == 1:
        return Estimate(float(values[0]), math.nan, 1)
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    return Estimate(float(np.mean(values)), float(stats.t.ppf((1 + level) / 2, count - 1)) * error, count)


def paired_estimate(values: dict[int, float], others: dict[int, float], level: float = 0.95) -> Estimate | None:
    """Mean difference over the seeds that both have, with the interval of the differences; ``None`` without such a seed.

    Methods of one seed share what that seed draws, D_0 above all, so their differences vary less than the methods do.

    Args:
        values: seed -> value.
        others: seed -> value that is subtracted.
        level: how sure the interval is.

    >>> paired_estimate({0: 0.5, 1: 0.75, 2: 9.0}, {0: 0.25, 1: 0.5}).text(2, signed=True)
    '+0.25 ± 0.00'
    """
    common = sorted(values.keys() & others.keys())
    return estimate([values[seed] - others[seed] for seed in common], level) if common else None
