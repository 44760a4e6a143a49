"""Which figures a run has."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from ccd_lightning.record import ROLES
from ccd_lightning.reporting.figures import Draw, draw_curves, draw_matrix
from ccd_lightning.reporting.tables import Summary, of_group

CURVES = {"H": "H-mean", "LA": "Learning average (LA)", "RA": "Retained average (RA)", "forgetting": "Forgetting"}
NEWCOMERS = {"new_users": "New users", "new_items": "New items"}


class Panel(NamedTuple):
    """One figure.

    Attributes:
        section: where it belongs: ``matrices``, ``curves`` or ``newcomers``.
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
    return [*_matrices(measured), *_curves(measured), *_newcomers(summary, metric)]


def _matrices(measured: Summary) -> Iterator[Panel]:
    values = [value for found in measured.values() for row in found["A"] for value in row]
    limits = (min(values), max(values))
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
        if any(curves.values()):
            yield Panel("newcomers", title, partial(draw_curves, curves=curves, title=title, first=1))


def fresh_row(matrix: list[list[float]]) -> list[float]:
    """The diagonal A[k][k]: each block just after it was learned.

    >>> fresh_row([[0.2], [0.1, 0.4]])
    [0.2, 0.4]
    """
    return [row[-1] for row in matrix]
