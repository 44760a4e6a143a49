"""What the runs of a study achieved, as one long table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import polars as pl

from ccd_lightning.record import ROLES
from ccd_lightning.studies.runner import is_finished
from ccd_lightning.studies.study import Run, Study, model_of

SCHEMA = {
    "method": pl.String,
    "seed": pl.Int64,
    "model": pl.String,
    "split": pl.String,
    "block": pl.Int64,
    "metric": pl.String,
    "LA": pl.Float64,
    "RA": pl.Float64,
    "H": pl.Float64,
}
"""One row a method, seed, model, split, block and metric; ``block`` is the last one that was learned."""


def long_table(study: Study) -> pl.DataFrame:
    """LA, RA and H-mean of every finished run, rows of :data:`SCHEMA`.

    Args:
        study: methods and seeds.
    """
    rows = [row for run in study.runs if is_finished(run) for row in _rows(run)]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def shown(table: pl.DataFrame, study: Study, model: str, split: str = "test") -> pl.DataFrame:
    """The rows of one model that the tables show: methods that speak of it, in the study's order, on the study's metric.

    A method that speaks of the student also speaks of the distilled one, which is the same where there is no Stage 1.

    Args:
        table: as :func:`long_table` gives it.
        study: methods and metric.
        model: ``teacher``, ``student`` or ``distilled``.
        split: ``test``, or ``valid`` to choose by.
    """
    methods = [name for name, method in study.methods.items() if model_of(model) in method.models]
    kept = table.filter(
        pl.col("method").is_in(methods),
        pl.col("model") == model,
        pl.col("split") == split,
        pl.col("metric") == study.metric,
    )
    return kept.sort(pl.col("method").replace_strict(methods, range(len(methods))), "seed", "block")


def best_baseline(table: pl.DataFrame, study: Study, model: str) -> str | None:
    """The continual baseline with the largest validation H-mean after the last block, on average over seeds.

    Baselines are compared on the seeds that all of them have, as long as there is one. Test results play no part in it.

    Args:
        table: as :func:`long_table` gives it.
        study: methods, and which of them are baselines.
        model: ``teacher``, ``student`` or ``distilled``.
    """
    valid = shown(table, study, model, "valid").filter(pl.col("method").is_in(study.baselines))
    if valid.is_empty():
        return None
    last = valid.filter(pl.col("block") == valid["block"].max())
    common = last.filter(pl.len().over("seed") == last["method"].n_unique())
    means = (last if common.is_empty() else common).group_by("method", maintain_order=True).agg(pl.col("H").mean())
    # Of equal ones the first in the study.
    found: str = means.sort("H", descending=True, maintain_order=True)["method"][0]
    return found


def _rows(run: Run) -> Iterator[tuple[Any, ...]]:
    metrics = json.loads((run.folder / "metrics.json").read_text())
    for split, of_roles in (("test", metrics), ("valid", metrics.get("valid", {}))):
        for role in ROLES:
            for metric, found in of_roles.get(role, {}).items():
                for block, values in enumerate(zip(found["LA"], found["RA"], found["H"], strict=True)):
                    # As long as no block has asked anybody there is no average.
                    if None not in values:
                        yield (run.method, run.seed, role, split, block, metric, *values)
