"""The table that ends a test: every model on every block."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ccd_lightning import functional as F
from ccd_lightning.modules.system import TESTED
from ccd_lightning.record import Results, StreamRecord
from ccd_lightning.reporting.tables import AVERAGES
from ccd_lightning.reporting.units import NOTHING, score

CUTOFF = 20
"""Of the metrics that the table shows, where it is among those that are measured."""


def models_table(tested: Mapping[str, Results], record: StreamRecord, ks: Sequence[int]) -> Table:
    """Recall and NDCG of every model on every block, and their averages as far as the record of the stream tells them.

    The retained average is the mean of what is measured now; the learning average also needs what each earlier block had
    just after it was learned. A model that has not learned the last block yet has no averages after it; one that has learned
    nothing yet is left out, with a line that says so.

    Args:
        tested: role -> block -> group -> metric -> value, as ``CollaborativeDistillation.test_results`` returns it.
        record: of the stream that was restored.
        ks: cut-offs of the metrics.
    """
    cutoff = CUTOFF if CUTOFF in ks else ks[0]
    # What the system calls its student plays two roles in a stream, before and after a distillation.
    found = {role if role == "teacher" else record.student_role(): results for role, results in tested.items()}
    columns = [(role, f"{name}@{cutoff}") for role in found for name in ("recall", "ndcg")]
    rows = {role: {metric: _row(results, metric) for _, metric in columns} for role, results in found.items()}
    averages = [averages_of(record, role, metric, rows[role][metric]) for role, metric in columns]
    title = f"test after {record.stages[-1]['name']}" if record.stages else "test"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("", no_wrap=True)
    for role, metric in columns:
        table.add_column(f"{role}\n{metric}", justify="right", no_wrap=True)
    blocks = list(next(iter(found.values()), {}))
    for index, block in enumerate(blocks):
        cells = [score(rows[role][metric][index]) for role, metric in columns]
        table.add_row(f"D{block}", *cells, end_section=index == len(blocks) - 1)
    for name in AVERAGES:
        table.add_row("H-mean" if name == "H" else name, *(score(values[name]) for values in averages))
    notes = [f"{role}: not learned yet" for role in TESTED if role not in tested]
    if any(None in values.values() for values in averages):
        notes.append(f"{NOTHING}: not measured after every block")
    if any(math.isnan(value) for of in rows.values() for row in of.values() for value in row):
        notes.append(f"{NOTHING} on a block: it asks nobody")
    table.caption = "\n".join(notes) or None
    # A caption is broken at the width of its table.
    table.min_width = max(map(len, notes), default=None)
    return table


def averages_of(record: StreamRecord, role: str, metric: str, row: Sequence[float]) -> dict[str, float | None]:
    """Learning average, retained average and H-mean after the last block of a row; ``None`` where they are not known.

    Args:
        record: of the stream so far.
        role: who was measured.
        metric: what.
        row: on the blocks D_0, ..., D_k.
    """
    block = len(row) - 1
    earlier = record.matrices[role]["all"].rows.get(metric, [])[:block]
    if not record.has(role, block):
        return dict.fromkeys(AVERAGES)
    retained = float(F.retained_average([list(row)] * len(row))[-1])
    if len(earlier) < block:
        return {"LA": None, "RA": retained, "H": None}
    learned = float(F.learning_average([*earlier, list(row)])[-1])
    return {"LA": learned, "RA": retained, "H": F.h_mean(learned, retained)}


def _row(results: Results, metric: str) -> list[float]:
    return [groups["all"][metric] for groups in results.values()]
