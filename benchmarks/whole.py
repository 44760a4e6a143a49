"""A whole stream as a user runs it, and how time and memory grow with a stream's size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import growth
from benchmarks.cases import Seconds, SkippedError
from ccd_lightning.data import BlockTable, ContinualDataModule

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "yelp_cpu.yaml"
_MAXRSS_PER_GB = 1e9 / 1024 if sys.platform.startswith("linux") else 1e9
"""What the system counts the largest resident size in: kibibytes on Linux, bytes elsewhere."""


def whole_stream(stream: ContinualDataModule, folder: Path) -> Seconds:
    """``train.py fit`` with configs/yelp_cpu.yaml in a process of its own, base teachers included.

    Args:
        stream: whose source is a block table.
        folder: where the run is kept; there is none yet.

    Raises:
        RuntimeError: with the run's last words, if it fails.
    """
    if not isinstance(stream.source, BlockTable):
        raise SkippedError("needs a block table")
    options = {
        "config": CONFIG,
        "data.source.path": Path(stream.source.path).resolve(),
        "trainer.default_root_dir": folder,
    }
    command = [sys.executable, "train.py", "fit", *(f"--{name}={value}" for name, value in options.items())]
    said = folder.with_suffix(".log")
    started = time.perf_counter()
    with said.open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} has failed:\n{said.read_text(errors='replace')[-2000:]}")
    seconds = time.perf_counter() - started
    parts = ", ".join(f"{kind} {spent:.0f} s" for kind, spent in _seconds_by_kind(folder).items())
    note = f"peak {usage.ru_maxrss / _MAXRSS_PER_GB:.2f} GB, at most 2; {parts}"
    return Seconds(None, seconds, "", target=20 * 60, note=note)


def _seconds_by_kind(run: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for block in json.loads((run / "stream.json").read_text())["blocks"]:
        for stage in block["stages"]:
            found[stage["kind"]] = found.get(stage["kind"], 0.0) + stage["seconds"]
    return found


def growing_stream(stream: ContinualDataModule) -> Seconds:
    """A million interactions in all phases of a stream of ten million, against one of a hundred thousand."""
    result = growth.measured(growth.SIZES, repeats=3)
    small, large = (1e6 * run["phases"][-1]["cpu_seconds"] / run["phases"][-1]["amount"] for run in result["runs"][::2])
    slopes = f"slope of log time {result['slopes'][growth.TOTAL]:.2f}, of log memory {result['memory_slope']:.2f}, at most 1.1"
    return Seconds(small, large, "a million interactions of a stream of 100,000", note=slopes)
