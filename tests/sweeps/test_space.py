from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from sweeps.params import HyperParameter

from ccd_lightning.sweeps.space import read_parameter

BOUNDS = {"min": 2, "max": 30}


def draws(found: dict[str, Any], number: int = 200) -> list[Any]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [read_parameter("a", found).suggest(study.ask()) for _ in range(number)]


@pytest.mark.parametrize(
    "found",
    [
        {"value": 3},
        {"values": [0, 5, 10]},
        {"values": ["block", "cumulative", None]},
        {"distribution": "categorical", "values": [True, False]},
        {"distribution": "constant", "value": "x"},
        BOUNDS,
        {"distribution": "q_uniform", "min": 0, "max": 20, "q": 5},
        {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.25},
    ],
)
def test_listed_values_are_those_that_wandb_draws(found: dict[str, Any]) -> None:
    theirs = HyperParameter("a", found)
    expected = {theirs.sample() for _ in range(400)}
    assert set(draws(found)) == expected
    if "min" in found:
        assert {type(value) for value in draws(found)} == {
            type(value.item() if hasattr(value, "item") else value) for value in expected
        }


@pytest.mark.parametrize(
    ("found", "spread"),
    [
        ({"distribution": "uniform", "min": 2, "max": 30}, lambda value: (value - 2) / 28),
        ({"min": 2.0, "max": 30.0}, lambda value: (value - 2) / 28),
        ({"distribution": "log_uniform_values", "min": 2, "max": 30}, lambda value: math.log(value / 2) / math.log(15)),
        ({"distribution": "log_uniform", "min": 0, "max": 2}, lambda value: math.log(value) / 2),
    ],
)
def test_numbers_follow_the_distribution(found: dict[str, Any], spread: Any) -> None:
    # The distribution function of a random number is uniform: its mean is 1/2, its variance 1/12.
    uniform = [spread(value) for value in draws(found, 2000)]
    mean = sum(uniform) / len(uniform)
    assert min(uniform) >= 0 and max(uniform) <= 1
    assert mean == pytest.approx(0.5, abs=0.03)
    assert sum((value - mean) ** 2 for value in uniform) / len(uniform) == pytest.approx(1 / 12, abs=0.01)


def test_a_list_as_a_value_comes_back_as_a_list() -> None:
    assert set(map(tuple, draws({"values": [[1, 3, 5], [0, 0, 0]]}))) == {(1, 3, 5), (0, 0, 0)}


@pytest.mark.parametrize(
    "found",
    [{"values": [0, 5, 9]}, {"min": 1, "max": 4}, {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.25}],
)
def test_grid_holds_what_can_be_drawn(found: dict[str, Any]) -> None:
    assert sorted(read_parameter("a", found).grid()) == sorted(set(draws(found)))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (5, "mapping such as"),
        ({"parameters": {"b": {"value": 1}}}, "write its parameters beside the others, as `a.<key>`"),
        ({"values": [1], "probabilities": [1.0]}, "has probabilities.*remove it"),
        ({"distribution": "normal", **BOUNDS}, "distribution 'normal'.*choose one"),
        ({"distribution": "constant"}, "without `value`"),
        ({"values": []}, "at least one entry"),
        ({"min": 3, "max": 2}, "`min` below `max`"),
        ({"min": "1", "max": 2}, "has min '1'.*a number"),
        ({"distribution": "int_uniform", "min": 0.5, "max": 2}, "whole bounds"),
        ({"distribution": "log_uniform_values", "min": 0, "max": 2}, "bounds above 0"),
        ({"distribution": "q_uniform", "q": 0, **BOUNDS}, "step above 0"),
        ({"distribution": "q_uniform", "q": 50, **BOUNDS}, "at least two steps"),
    ],
)
def test_other_parameters_are_refused(found: Any, message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        read_parameter("a", found)


def test_a_grid_refuses_numbers_without_an_end() -> None:
    with pytest.raises(MisconfigurationException, match=r"has no end of values.*list `values`"):
        read_parameter("a", {"min": 0.0, "max": 1.0}).grid()


@pytest.mark.parametrize(
    ("low", "high", "step", "values"),
    [
        (0.1, 0.3, 0.1, [0.1, 0.2, 0.3]),
        (0.2, 0.6, 0.2, [0.2, 0.4, 0.6]),
        (0.07, 0.1, 0.01, [0.07, 0.08, 0.09, 0.1]),
        (0.1, 0.7, 0.1, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        (0.15, 0.39, 0.1, [0.2, 0.3]),
        (1e-4, 3e-4, 1e-4, [1e-4, 2e-4, 3e-4]),
    ],
)
def test_steps_of_decimal_fractions_reach_their_bounds(
    low: float, high: float, step: float, values: list[float]
) -> None:
    found = read_parameter("a", {"distribution": "q_uniform", "min": low, "max": high, "q": step})
    assert found.grid() == values
    assert [found.encoded(value) for value in values] == values
