"""How long the rest of a stream will take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Work(NamedTuple):
    """A stage's amount of work.

    Attributes:
        kind: kind of the stage.
        amount: rows times epochs, or a part of it.
        seconds: what it took; 0 for work that lies ahead.
    """

    kind: str
    amount: float
    seconds: float = 0.0


def remaining_seconds(done: Sequence[Work], ahead: Sequence[Work]) -> float | None:
    """Seconds that the work ahead will take at the pace of the work done.

    Each kind of stage has its own pace; a kind that was not seen yet goes at the pace of all the others together.

    Args:
        done: work with the seconds it took.
        ahead: work to come.

    Returns:
        ``None`` as long as nothing was done.

    >>> remaining_seconds([Work("base", 100, 10.0), Work("update", 10, 4.0)], [Work("update", 20), Work("base", 50)])
    13.0
    """
    amounts: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for work in done:
        amounts[work.kind] = amounts.get(work.kind, 0.0) + work.amount
        seconds[work.kind] = seconds.get(work.kind, 0.0) + work.seconds
    total = sum(amounts.values())
    if not total:
        return None
    overall = sum(seconds.values()) / total
    pace = {kind: seconds[kind] / amount for kind, amount in amounts.items() if amount}
    return sum(work.amount * pace.get(work.kind, overall) for work in ahead)
