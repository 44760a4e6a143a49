"""Checks of settings, made where a setting enters, so that no value out of range surfaces after an hour of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, get_args


def require_number(
    name: str, value: Any, least: float | None = None, above: float | None = None, most: float | None = None
) -> None:
    """Refuse what is no finite number within the bounds.

    Args:
        name: the setting, as in a configuration.
        value: what was given.
        least: smallest admitted value.
        above: admitted values are larger.
        most: largest admitted value.

    Raises:
        ValueError: naming setting, value and bounds.

    >>> require_number("learning_rate", float("nan"), above=0)
    Traceback (most recent call last):
    ...
    ValueError: `learning_rate` is nan, but must be a finite number above 0: mend the setting.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if is_number and _within(float(value), least, above, most):
        return
    kind = "" if is_number else "a finite number "
    raise ValueError(f"`{name}` is {value!r}, but must be {kind}{_bounds(least, above, most)}: mend the setting.")


def require_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Refuse what is no whole number within the bounds.

    Args:
        name: the setting, as in a configuration.
        value: what was given.
        least: smallest admitted value.
        most: largest admitted value.

    Raises:
        ValueError: naming setting, value and bounds.
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if is_whole and value >= least and (most is None or value <= most):
        return
    kind = "" if is_whole else "a whole number "
    raise ValueError(f"`{name}` is {value!r}, but must be {kind}{_bounds(least, None, most)}: mend the setting.")


def require_word(name: str, value: Any, words: Any) -> None:
    """Refuse a word that is none of those admitted.

    Args:
        name: the setting, as in a configuration.
        value: what was given.
        words: the ``Literal`` type of the setting.

    Raises:
        ValueError: naming setting, value and the words.
    """
    if value not in get_args(words):
        raise ValueError(f"`{name}` is {value!r}, but must be one of {', '.join(get_args(words))}: mend the setting.")


def require_stream_options(options: Mapping[str, Any]) -> None:
    """Refuse options of Lightning's Trainer with which a stream would break, or learn nothing without a word.

    Args:
        options: arguments of the Trainer.

    Raises:
        ValueError: naming the option.
    """
    if options.get("accumulate_grad_batches") is not None:
        require_whole("accumulate_grad_batches", options["accumulate_grad_batches"], 1)
    for name, harmless, reason in (
        ("barebones", (None, False), "stages are judged by metrics, which it switches off"),
        (
            "fast_dev_run",
            (None, False, 0),
            "its few steps count over the whole stream, so later stages would learn nothing",
        ),
        ("limit_test_batches", (None, 1.0), "a stream is measured on whole test splits"),
        ("max_steps", (None, -1), "steps count over the whole stream, so later stages would learn nothing"),
        ("max_time", (None,), "time counts over the whole stream, so later stages would learn nothing"),
    ):
        if options.get(name) not in harmless:
            raise ValueError(
                f"`trainer.{name}` is {options[name]!r}, but {reason}: leave it out; `trainer.plan` limits the epochs of a"
                " stage, and a stopped run goes on with `--ckpt_path last`."
            )


def by_block(name: str, value: Any) -> list[tuple[str, Any]]:
    """The name and value of each entry of a setting that may differ from block to block.

    Args:
        name: the setting, as in a configuration.
        value: one value for all blocks, or a list of them.

    Raises:
        ValueError: if the list is empty.

    >>> by_block("top_n", 50), by_block("top_n", [50, 100])
    ([('top_n', 50)], [('top_n[0]', 50), ('top_n[1]', 100)])
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [(name, value)]
    if not value:
        raise ValueError(f"`{name}` is an empty list, but needs one value a block: give at least one number.")
    return [(f"{name}[{index}]", entry) for index, entry in enumerate(value)]


def _within(value: float, least: float | None, above: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (above is None or value > above) and (most is None or value <= most)


def _bounds(least: float | None, above: float | None, most: float | None) -> str:
    named = (("at least", least), ("above", above), ("at most", most))
    return " and ".join(f"{word} {bound}" for word, bound in named if bound is not None)
