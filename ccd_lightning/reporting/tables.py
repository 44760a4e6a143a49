"""The metrics of a run as one long table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from ccd_lightning.modules import GROUPS
from ccd_lightning.record import ROLES

METRIC = "recall@20"
"""The metric that reports show, where it is measured."""

AVERAGES = ("LA", "RA", "H")
"""What a row of a performance matrix comes to: learning average, retained average, and their harmonic mean."""

COLUMNS = ("role", "group", "metric", "quantity", "after_block", "block", "value")

Summary = Mapping[str, Any]
"""What `StreamRecord.summary` returns: the content of ``metrics.json``."""


def pick_metric(summary: Summary, preferred: str = METRIC) -> str:
    """The metric to show: the preferred one, or the first of those that were measured.

    >>> pick_metric({"teacher": {"recall@5": {}, "ndcg@5": {}}, "student": {}, "distilled": {}})
    'recall@5'
    """
    measured = [name for role in ROLES for name in summary[role]]
    return preferred if preferred in measured or not measured else measured[0]


def of_group(summary: Summary, group: str) -> Mapping[str, Any]:
    """Role -> metric -> matrix and curves, of everybody (``all``) or of the newcomers of the blocks."""
    return {role: summary[role] for role in ROLES} if group == GROUPS[0] else summary[group]


def metric_rows(summary: Summary) -> Iterator[tuple[Any, ...]]:
    """Rows of :data:`COLUMNS`.

    ``quantity`` is ``A`` (the metric on ``block`` after ``after_block``), a curve over the blocks (``LA``, ``RA``,
    ``H``, ``forgetting``, ``backward_transfer``, ``forward_transfer``: ``block`` is empty), ``count`` (how many
    users were asked on ``block``, and how many of them the model did not know), or ``overlap`` (the share of the teacher
    system's top places that the student has too).
    """
    for group in GROUPS:
        for role, metrics in of_group(summary, group).items():
            for metric, found in metrics.items():
                for quantity, values in found.items():
                    yield from _rows((role, group, metric, quantity), values)
    for role, rows in summary["users"].items():
        for after, counts in enumerate(rows):
            for block, count in enumerate(counts):
                for name, value in count.items():
                    yield (role, GROUPS[0], name, "count", after, block, value)
    for name, shares in summary["overlap"].items():
        yield from _rows((ROLES[-1], GROUPS[0], name, "overlap"), shares)


def _rows(head: tuple[str, ...], values: list[Any]) -> Iterator[tuple[Any, ...]]:
    for after, value in enumerate(values):
        if isinstance(value, list):
            yield from ((*head, after, block, entry) for block, entry in enumerate(value))
        else:
            yield (*head, after, None, value)


def to_csv(summary: Summary) -> str:
    """The rows as CSV in full precision; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(metric_rows(summary))
    return text.getvalue()
