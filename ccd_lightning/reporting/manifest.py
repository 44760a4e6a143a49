"""The manifest of a run: which data, which seed, which stages are done, and what they reached."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ccd_lightning.data import ContinualDataModule
from ccd_lightning.record import ROLES, StreamRecord
from ccd_lightning.reporting.tables import AVERAGES, pick_metric
from ccd_lightning.types import Block

FORMAT = 1
PACKAGES = ("torch", "lightning", "torchmetrics", "numpy", "scipy", "polars", "pyarrow")


def stream_manifest(
    stream: ContinualDataModule, record: StreamRecord, costs: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    """The content of ``stream.json``.

    Args:
        stream: the data.
        record: stages and metrics so far.
        costs: block -> role -> cost, as far as measured.
    """
    finished = [all(record.has(role, block.index) for role in ROLES) for block in stream.blocks]
    blocks = [
        {**_data_of(block), **_stages_of(block, record), "finished": done, "models": costs.get(block.index, {})}
        for block, done in zip(stream.blocks, finished, strict=True)
    ]
    return {
        "format": FORMAT,
        "status": "finished" if all(finished) else "running",
        "version": _version("ccd-lightning"),
        "packages": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "seed": stream.seed,
        "source": stream.source.describe(),
        "stages_done": len(record.stages),
        "events": record.events,
        "blocks": blocks,
        "metrics": _last_metrics(record),
    }


def _data_of(block: Block) -> dict[str, Any]:
    return {
        "index": block.index,
        "fingerprint": block.fingerprint,
        "users": block.num_users,
        "items": block.num_items,
        "new_users": block.num_users - block.num_old_users,
        "new_items": block.num_items - block.num_old_items,
        "train": block.train.size,
        "valid": block.valid.size,
        "test": block.test.size,
        "repeats_dropped": block.repeats_dropped,
    }


def _stages_of(block: Block, record: StreamRecord) -> dict[str, Any]:
    return {"stages": [entry for entry in record.stages if entry["block"] == block.index]}


def _last_metrics(record: StreamRecord) -> dict[str, Any]:
    """Each role's learning average, retained average and their harmonic mean after its last measured block."""
    summary = record.summary()
    metric = pick_metric(summary)
    found = {role: summary[role][metric] for role in ROLES if metric in summary[role]}
    last = {role: {name: curves[name][-1] for name in AVERAGES} for role, curves in found.items()}
    return {metric: last}


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
