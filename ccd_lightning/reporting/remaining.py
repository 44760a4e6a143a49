"""How long the rest of a stream will take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Work(NamedTuple):
    """A stage's amount of work.

    Attributes:
        kind: kind of the stage.
        model: who learns in it.
        amount: rows times epochs, or a part of it.
        seconds: what it took; 0 for work that lies ahead.
    """

    kind: str
    model: str
    amount: float
    seconds: float = 0.0


def remaining_seconds(done: Sequence[Work], ahead: Sequence[Work]) -> float | None:
    """Seconds that the work ahead will take at the pace of the work done that is most like it.

    That is the same model in the same kind of stage, else the same kind, else the same model, else all the work done.

    Args:
        done: work with the seconds it took.
        ahead: work to come.

    Returns:
        ``None`` as long as nothing was done.

    >>> done = [Work("base", "teacher", 100, 10.0), Work("update", "student", 10, 4.0)]
    >>> remaining_seconds(done, [Work("update", "student", 20), Work("base", "teacher", 50)])
    13.0
    """
    done = [work for work in done if work.amount]
    if not done:
        return None
    return sum(work.amount * _pace(done, work) for work in ahead)


def _pace(done: Sequence[Work], like: Work) -> float:
    candidates = (
        [work for work in done if (work.kind, work.model) == (like.kind, like.model)],
        [work for work in done if work.kind == like.kind],
        [work for work in done if work.model == like.model],
        done,
    )
    alike = next(found for found in candidates if found)
    return sum(work.seconds for work in alike) / sum(work.amount for work in alike)
