"""Reads the files that W&B writes when it is offline: records of Protocol Buffers in the log format of LevelDB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wandb
from wandb.proto.wandb_internal_pb2 import Record

HEADER, BLOCK = 7, 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def end_run() -> None:
    """End the process's W&B run as the end of the process does; what follows is as in a new process."""
    wandb.finish()
    wandb.teardown()


def records(run: Path) -> Iterator[Record]:
    """Every record of a W&B run's folder; a record is cut into pieces at the ends of blocks."""
    content = next(run.glob("run-*.wandb")).read_bytes()
    place, whole = HEADER, b""
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        whole += content[place + HEADER : place + HEADER + size]
        place += HEADER + size
        if kind in (FULL, LAST):
            yield Record.FromString(whole)
            whole = b""


class OfflineRun:
    """What a W&B run would upload: history, summary, configuration, axes of the metrics, and artifacts."""

    def __init__(self, run: Path) -> None:
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.axes: dict[str, str] = {}
        self.artifacts: list[Any] = []
        self.id = self.sweep_id = ""
        for record in records(run):
            self._read(record)

    def _read(self, record: Record) -> None:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            self.id, self.sweep_id = record.run.run_id, record.run.sweep_id
            self.config |= _values(record.run.config.update)
        elif kind == "config":
            self.config |= _values(record.config.update)
        elif kind == "history":
            self.history.append(_values(record.history.item))
        elif kind == "summary":
            self.summary |= _values(record.summary.update)
        elif kind == "metric":
            self.axes[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "artifact":
            self.artifacts.append(record.artifact)

    def column(self, name: str) -> list[Any]:
        """A metric's values in the order of logging."""
        return [row[name] for row in self.history if name in row]


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
