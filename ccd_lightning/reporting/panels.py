"""Which figures a run has."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from ccd_lightning.record import ROLES
from ccd_lightning.reporting.bars import draw_bars
from ccd_lightning.reporting.figures import Draw, draw_curves, draw_matrix, draw_shares
from ccd_lightning.reporting.tables import Summary, of_group
from ccd_lightning.types import StageKind

CURVES = {"H": "H-mean", "LA": "Learning average (LA)", "RA": "Retained average (RA)", "forgetting": "Forgetting"}
PUPILS = {
    StageKind.STUDENT_UPDATE: "Pairs replayed into the student",
    StageKind.TEACHER_UPDATE: "Pairs replayed into each teacher",
}
SHARED = "Top 20 that student and teachers share"
NEWCOMERS = {"new_users": "New users", "new_items": "New items"}


class Panel(NamedTuple):
    """One figure.

    Attributes:
        section: where it belongs: ``matrices``, ``curves``, ``newcomers`` or ``teaching``.
        title: what it shows.
        draw: draws it.
    """

    section: str
    title: str
    draw: Draw


def panels(summary: Summary, metric: str) -> list[Panel]:
    """All the figures that the summary has numbers for.

    Args:
        summary: content of ``metrics.json``.
        metric: the metric to show.
    """
    measured = {role: summary[role][metric] for role in ROLES if metric in summary[role]}
    if not measured:
        return []
    return [*_matrices(measured), *_curves(measured), *_newcomers(summary, metric), *_teaching(summary)]


def _matrices(measured: Summary) -> Iterator[Panel]:
    values = [value for found in measured.values() for row in found["A"] for value in row if not math.isnan(value)]
    limits = (min(values, default=0.0), max(values, default=1.0))
    for role, found in measured.items():
        yield Panel("matrices", role, partial(draw_matrix, rows=found["A"], title=role.capitalize(), limits=limits))


def _curves(measured: Summary) -> Iterator[Panel]:
    for name, title in CURVES.items():
        curves = {role: found[name] for role, found in measured.items()}
        yield Panel("curves", title, partial(draw_curves, curves=curves, title=title))


def _newcomers(summary: Summary, metric: str) -> Iterator[Panel]:
    """Newcomers of D_k just after block k; everybody is new in D_0, so the curves begin at D_1."""
    for group, title in NEWCOMERS.items():
        found = of_group(summary, group)
        curves = {role: fresh_row(found[role][metric]["A"])[1:] for role in ROLES if metric in found[role]}
        if any(not math.isnan(value) for values in curves.values() for value in values):
            yield Panel("newcomers", title, partial(draw_curves, curves=curves, title=title, first=1))


def _teaching(summary: Summary) -> Iterator[Panel]:
    """Replayed pairs start in D_1, since nothing is remembered before."""
    for kind, title in PUPILS.items():
        parts = replayed_pairs(summary, kind)
        if parts:
            yield Panel("teaching", title, partial(draw_bars, parts=parts, title=title, first=1))
    values = overlap_of(summary)
    if values:
        yield Panel("teaching", SHARED, partial(draw_shares, curves={"distilled": values}, title=SHARED))


def overlap_of(summary: Summary) -> list[float]:
    """Share of the teacher system's top places that the student has too, after each block; nan where nobody measured.

    >>> overlap_of({"overlap": {"top@20": [None, 0.5]}}), overlap_of({})
    ([nan, 0.5], [])
    """
    found: Sequence[float | None] = next(iter(summary.get("overlap", {}).values()), [])
    return [math.nan if value is None else float(value) for value in found]


def replayed_pairs(summary: Summary, kind: StageKind) -> dict[str, list[float]]:
    """Pairs that a model replays in the stages of a kind in D_1, D_2, ..., by source; the mean over several teachers.

    >>> counts = {"block2-teacher_update-0": {"student": 4}, "block2-teacher_update-1": {"student": 6}}
    >>> replayed_pairs({"replayed": counts}, StageKind.TEACHER_UPDATE)
    {'student': [0.0, 5.0]}
    """
    stages: dict[int, list[Mapping[str, int]]] = {}
    for name, counts in summary["replayed"].items():
        block, found, *_ = name.split("-")
        if found == kind.value:
            stages.setdefault(int(block.removeprefix("block")), []).append(counts)
    sources = dict.fromkeys(source for lists in stages.values() for counts in lists for source in counts)
    blocks = range(1, max(stages, default=0) + 1)
    return {source: [_mean_count(stages.get(block, []), source) for block in blocks] for source in sources}


def _mean_count(stages: Sequence[Mapping[str, int]], source: str) -> float:
    return sum(counts.get(source, 0) for counts in stages) / max(len(stages), 1)


def fresh_row(matrix: list[list[float]]) -> list[float]:
    """The diagonal A[k][k]: each block just after it was learned.

    >>> fresh_row([[0.2], [0.1, 0.4]])
    [0.2, 0.4]
    """
    return [row[-1] for row in matrix]
