"""The table that ends a run: teacher against student."""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ccd_lightning.record import ROLES
from ccd_lightning.reporting.tables import AVERAGES, Summary
from ccd_lightning.reporting.units import score, size
from ccd_lightning.types import StageKind

SHOWN_BLOCKS = 6
"""The last blocks of a stream that a table of 80 columns has room for."""

KINDS = {
    "teacher": (StageKind.BASE, StageKind.TEACHER_UPDATE),
    "student": (StageKind.STUDENT_UPDATE,),
    "distilled": (StageKind.DISTILLATION,),
}
"""The stages whose seconds a role costs."""


def final_table(summary: Summary, metric: str, sizes: Mapping[int, Mapping[str, int]]) -> Table:
    """Averages, seconds and bytes of every role after each block, within 80 columns.

    Args:
        summary: content of ``metrics.json``.
        metric: the metric to show.
        sizes: block -> role -> bytes, as far as known.
    """
    found = {role: summary[role][metric] for role in ROLES if metric in summary[role]}
    blocks = max((len(curves["H"]) for curves in found.values()), default=0)
    shown = range(max(0, blocks - SHOWN_BLOCKS), blocks)
    table = Table(title=f"test {metric} after each block", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("", "", *(f"D{block}" for block in shown)):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for role, curves in found.items():
        rows = {name: [score(curves[name][block]) for block in shown] for name in AVERAGES}
        rows["seconds"] = [f"{_seconds(summary, role, block):.1f}" for block in shown]
        if role in sizes.get(blocks - 1, {}):
            rows["bytes"] = [size(sizes[block][role]) if block in sizes else "" for block in shown]
        for index, (name, cells) in enumerate(rows.items()):
            label = "H-mean" if name == "H" else name
            table.add_row("" if index else role, label, *cells, end_section=index == len(rows) - 1)
    return table


def _seconds(summary: Summary, role: str, block: int) -> float:
    spent = [summary["seconds"].get(kind.value, []) for kind in KINDS[role]]
    return float(sum(seconds[block] for seconds in spent if block < len(seconds)))
