"""What a study tells people: a long table, tables to read, and a picture of the gains."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from ccd_lightning.record import ROLES
from ccd_lightning.reporting import to_json, write_atomically
from ccd_lightning.studies.results import best_baseline, long_table, shown
from ccd_lightning.studies.runner import AFTER_BASE, is_finished, stamp_of
from ccd_lightning.studies.statistics import Estimate, estimate, paired_estimate
from ccd_lightning.studies.study import Run, Study

QUANTITIES = {"LA": "learning average", "RA": "retained average", "H": "H-mean"}


def write_report(study: Study, failed: Mapping[str, str]) -> None:
    """Write ``results.parquet``, ``results.md``, ``gain.png`` and ``study.json`` into the study's folder.

    Args:
        study: methods and seeds.
        failed: run -> what went wrong.
    """
    table, folder = long_table(study), study.folder
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    write_atomically(folder / "results.parquet", buffer.getvalue())
    write_atomically(folder / "results.md", markdown(study, table, failed))
    states = [{"name": run.name, "method": run.method, "seed": run.seed, **_state(run, failed)} for run in study.runs]
    best = {model: best_baseline(table, study, model) for model in ROLES}
    write_atomically(folder / "study.json", to_json({"runs": states, "best_baseline": best, "metric": study.metric}))
    curves = {model: gain(study, table, model) for model in ROLES}
    if any(curves.values()):
        from ccd_lightning.studies.figures import gain_figure

        write_atomically(folder / "gain.png", gain_figure(study, curves, best))


def gain(study: Study, table: pl.DataFrame, model: str) -> list[Estimate]:
    """H-mean of the study's own method minus that of the best baseline, after D_1, D_2, ..., paired over seeds.

    Args:
        study: methods and seeds.
        table: as `long_table` gives it.
        model: ``teacher``, ``student`` or ``distilled``.
    """
    best = best_baseline(table, study, model)
    if best is None or best == study.ours:
        return []
    found = [paired_estimate(ours, theirs) for ours, theirs in _pairs(study, table, model, study.ours, best)]
    return [value for value in found[1:] if value is not None]


def markdown(study: Study, table: pl.DataFrame, failed: Mapping[str, str]) -> str:
    """The tables as Markdown.

    Args:
        study: methods and seeds.
        table: as `long_table` gives it.
        failed: run -> what went wrong.
    """
    parts = [
        f"Test {study.metric} by full ranking, mean over seeds and 95% t interval; a mean alone is of one seed. Paired"
        " differences are of the same seeds. The best baseline of each model is the one with the largest validation H-mean"
        " after the last block. `student` is measured after its update, `distilled` at the end of the block, as it is deployed."
    ]
    for model in ROLES:
        rows = shown(table, study, model)
        if rows.is_empty():
            continue
        parts += [_averages(rows, model, name) for name in QUANTITIES]
        parts += _differences(study, table, rows, model)
    missing = [run for run in study.runs if not is_finished(run)]
    if missing:
        parts.append("Runs that are not finished:")
        parts.append("\n".join(f"- {run.name}: {_state(run, failed)['status']}" for run in missing))
    return "\n\n".join(parts) + "\n"


def _averages(rows: pl.DataFrame, model: str, quantity: str) -> str:
    grouped = rows.group_by("method", "block", maintain_order=True).agg(
        pl.col(quantity), pl.col("seed").len().alias("n")
    )
    blocks = sorted(rows["block"].unique())
    cells: dict[str, dict[int, str]] = {}
    seeds: dict[str, int] = {}
    for method, block, values, count in grouped.iter_rows():
        cells.setdefault(method, {})[block] = estimate(values).text()
        seeds[method] = count
    lines = [[name, str(seeds[name]), *(found.get(block, "") for block in blocks)] for name, found in cells.items()]
    head = [f"{model}, {QUANTITIES[quantity]}", "seeds", *(f"D_{block}" for block in blocks)]
    return _table(head, lines)


def _differences(study: Study, table: pl.DataFrame, rows: pl.DataFrame, model: str) -> list[str]:
    """H-mean of every method minus that of the best baseline."""
    best = best_baseline(table, study, model)
    if best is None:
        return ["No validation results of a baseline: no best baseline is chosen."] if study.baselines else []
    lines = []
    for method in rows["method"].unique(maintain_order=True):
        if method == best:
            continue
        found = [paired_estimate(*pair) for pair in _pairs(study, table, model, method, best)]
        seeds = max((value.seeds for value in found if value), default=0)
        lines.append([method, str(seeds), *(value.text(signed=True) if value else "" for value in found)])
    blocks = sorted(rows["block"].unique())
    return [_table([f"{model}, H-mean minus that of {best}", "seeds", *(f"D_{block}" for block in blocks)], lines)]


def _pairs(
    study: Study, table: pl.DataFrame, model: str, method: str, other: str
) -> list[tuple[dict[int, float], dict[int, float]]]:
    """For each block H-mean by seed, of two methods."""
    rows = shown(table, study, model)

    def by_seed(name: str, block: int) -> dict[int, float]:
        kept = rows.filter(pl.col("method") == name, pl.col("block") == block)
        return dict(zip(kept["seed"], kept["H"], strict=True))

    return [(by_seed(method, block), by_seed(other, block)) for block in sorted(rows["block"].unique())]


def _state(run: Run, failed: Mapping[str, str]) -> dict[str, str | None]:
    stamp = stamp_of(run) or {}
    origin = stamp.get("began_with")
    if is_finished(run):
        status, message = "finished", None
    elif run.name in failed:
        status, message = f"failed: {failed[run.name]}", failed[run.name]
    else:
        status, message = ("not finished", None) if stamp else ("not begun", None)
    shared = Path(origin).parent.parent.name if origin and AFTER_BASE in origin else None
    return {"status": status, "message": message, "shares_D_0_of": shared}


def _table(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
