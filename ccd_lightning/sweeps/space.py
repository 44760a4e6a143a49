"""The parameters of a W&B sweep, as Optuna draws them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from optuna.trial import BaseTrial

DISTRIBUTIONS = ("constant", "categorical", "int_uniform", "uniform", "q_uniform", "log_uniform", "log_uniform_values")
"""What can be drawn here; W&B knows more."""

_KEYS = {"value", "values", "min", "max", "q", "distribution"}


@dataclass(frozen=True)
class Parameter:
    """One dotted option of the command line and the values that it may have.

    Args:
        name: the option without its dashes.
        values: all the values, where they are listed; otherwise empty.
        low: least number.
        high: largest number.
        step: distance of neighbouring numbers; ``None`` for any number between.
        log: draw the logarithm uniformly.
    """

    name: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False

    def suggest(self, trial: BaseTrial) -> Any:
        """The trial's value."""
        if len(self.values) == 1:
            return self.values[0]
        if self.values:
            choices = [_choice(value) for value in self.values]
            return self.values[choices.index(trial.suggest_categorical(self.name, choices))]
        if isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, int):
            return trial.suggest_int(self.name, self.low, self.high, step=self.step)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def encoded(self, value: Any) -> Any:
        """A value that the sweep may draw, as Optuna takes it.

        Raises:
            MisconfigurationException: if the sweep never draws it.

        >>> Parameter("exclusion", (0, 20)).encoded(20), Parameter("rate", (), 0.1, 0.9).encoded(0.5)
        (20, 0.5)
        """
        if self.values:
            fits = _choice(value) in [_choice(known) for known in self.values]
        else:
            fits = isinstance(value, int | float) and self.low <= value <= self.high and self._is_step(value)
        if not fits:
            raise MisconfigurationException(
                f"the configuration's own `{self.name}: {value}` is no value of the sweep: widen the sweep to begin there."
            )
        return _choice(value)

    def _is_step(self, value: float) -> bool:
        steps = (value - self.low) / (self.step or 1)
        return self.step is None or math.isclose(steps, round(steps), abs_tol=1e-9)

    def grid(self) -> list[Any]:
        """All the values as Optuna takes them.

        Raises:
            MisconfigurationException: if there is no end of them.
        """
        if self.values:
            return [_choice(value) for value in self.values]
        if self.step is None:
            raise MisconfigurationException(
                f"The sweep's parameter `{self.name}` has no end of values, but a grid tries them all: list `values`, give it"
                " the distribution int_uniform or q_uniform, or choose the `method` random or bayes."
            )
        count = round((self.high - self.low) / self.step) + 1
        return [round(self.low + index * self.step, 12) for index in range(count)]


def read_parameter(name: str, found: Any) -> Parameter:
    """A parameter as W&B sweeps write it.

    Args:
        name: its key.
        found: what stands behind the key.

    Raises:
        MisconfigurationException: naming the parameter and what is wrong with it.

    >>> read_parameter("distillation.student_replay.stability", {"distribution": "q_uniform", "min": 0, "max": 11, "q": 5})
    Parameter(name='distillation.student_replay.stability', values=(), low=0, high=10, step=5, log=False)
    """
    if not isinstance(found, Mapping):
        raise _mistake(name, f"is {found!r}", "a mapping such as {values: [1, 2]} was expected", "mend it")
    if "parameters" in found:
        told = "nested parameters would reach the command line as one text"
        raise _mistake(name, "is nested", told, f"write its parameters beside the others, as `{name}.<key>`")
    unknown = sorted(set(found) - _KEYS)
    if unknown:
        expected = f"{', '.join(sorted(_KEYS))} were expected"
        raise _mistake(name, f"has {', '.join(unknown)}", expected, "remove it, or run the sweep with `wandb sweep`")
    kind = found.get("distribution") or _kind(name, found)
    if kind not in DISTRIBUTIONS:
        expected = f"here one of {', '.join(DISTRIBUTIONS)} was expected"
        raise _mistake(name, f"has the distribution {kind!r}", expected, "choose one, or use `wandb sweep`")
    if kind in ("constant", "categorical"):
        return Parameter(name, _listed(name, kind, found))
    return _numbers(name, kind, found)


def _kind(name: str, found: Mapping[str, Any]) -> str:
    """The distribution that W&B takes where none is named."""
    if "value" in found or "values" in found:
        return "constant" if "value" in found else "categorical"
    whole = all(isinstance(_number(name, found, key), int) for key in ("min", "max"))
    return "int_uniform" if whole else "uniform"


def _listed(name: str, kind: str, found: Mapping[str, Any]) -> tuple[Any, ...]:
    key = "value" if kind == "constant" else "values"
    if key not in found:
        raise _mistake(name, f"is {kind} without `{key}`", f"`{key}` was expected", "add it")
    if key == "value":
        return (found[key],)
    if not isinstance(found[key], list) or not found[key]:
        raise _mistake(name, f"has the values {found[key]!r}", "a list with at least one entry was expected", "mend it")
    return tuple(found[key])


def _numbers(name: str, kind: str, found: Mapping[str, Any]) -> Parameter:
    low, high = _number(name, found, "min"), _number(name, found, "max")
    if not low < high:
        raise _mistake(name, f"goes from {low} to {high}", "`min` below `max` was expected", "mend the bounds")
    if kind == "int_uniform":
        if not (isinstance(low, int) and isinstance(high, int)):
            raise _mistake(
                name, f"goes from {low} to {high}", "int_uniform has whole bounds", "mend them, or use uniform"
            )
        return Parameter(name, (), low, high, 1)
    if kind == "q_uniform":
        return _steps(name, low, high, _number(name, {"q": 1, **found}, "q"))
    if kind == "log_uniform":
        low, high = math.exp(low), math.exp(high)
    log = kind != "uniform"
    if log and low <= 0:
        raise _mistake(name, f"begins at {low}", f"{kind} has bounds above 0", "mend `min`, or use uniform")
    return Parameter(name, (), float(low), float(high), None, log)


def _steps(name: str, low: float, high: float, step: float) -> Parameter:
    """The multiples of the step within the bounds; whole ones where all three numbers are whole."""
    if step <= 0:
        raise _mistake(name, f"has a `q` of {step}", "a step above 0 was expected", "mend it")
    # Quotients of decimal fractions may lie a rounding error beside a whole number.
    first, last = (round(count * step, 12) for count in (math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)))
    if not first < last:
        raise _mistake(name, f"goes from {low} to {high} by {step}", "at least two steps were expected", "mend `q`")
    return Parameter(name, (), first, last, step)


def _number(name: str, found: Mapping[str, Any], key: str) -> float:
    value = found.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _mistake(name, f"has {key} {value!r}", f"a number, such as `{key}: 0.1`, was expected", "mend it")
    return value


def _choice(value: Any) -> bool | int | float | str | None:
    """Optuna stores plain values alone."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)


def _mistake(name: str, found: str, expected: str, to_do: str) -> MisconfigurationException:
    return MisconfigurationException(f"The sweep's parameter `{name}` {found}, but {expected}: {to_do}.")
