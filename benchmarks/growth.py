"""How time and memory grow with the stream: a simulated stream in several sizes, each in a process of its own.

`python -m benchmarks.growth --output build/growth` writes `growth.json`, `growth.md` and `growth.png`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.growth_phases import Size, measure
from benchmarks.growth_report import draw, markdown
from benchmarks.measuring import forget_peak, machine, peak_bytes
from ccd_lightning.memory import keep_freed_memory

SIZES = (Size(3_000, 1_000, 100_000), Size(30_000, 10_000, 1_000_000), Size(300_000, 100_000, 10_000_000))
TOTAL = "all that go through interactions"
"""The last phase, which sums up others."""


def main() -> None:
    """Measure every size in turn and write the three files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", type=as_size, default=list(SIZES), metavar="USERSxITEMSxINTERACTIONS")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each size; the least time of a phase counts")
    parser.add_argument("--output", type=Path, default=Path("build/growth"), help="folder for the results")
    parser.add_argument("--one", type=as_size, help="measure this size in this process and print JSON")
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure_here(chosen.one)))
        return
    result = measured(chosen.sizes, chosen.repeats)
    chosen.output.mkdir(parents=True, exist_ok=True)
    (chosen.output / "growth.json").write_text(json.dumps(result, indent=1) + "\n")
    (chosen.output / "growth.md").write_text(markdown(result))
    draw(result, chosen.output / "growth.png")
    print(markdown(result))


def measured(sizes: Sequence[Size], repeats: int) -> dict[str, Any]:
    """What every size took in turn, and the slopes over them.

    Args:
        sizes: from small to large.
        repeats: runs of each size; the least time of a phase counts.
    """
    runs = [with_total(joined([measure_apart(size) for _ in range(repeats)])) for size in sizes]
    return {
        "command": f"python -m benchmarks.growth --repeats {repeats}",
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "runs": runs,
        "slopes": slopes(runs),
        "memory_slope": memory_slope(runs),
    }


def as_size(text: str) -> Size:
    """`3000x1000x100000` as a size."""
    return Size(*(int(part) for part in text.split("x")))


def measure_here(size: Size) -> dict[str, Any]:
    """All phases of one size, with the memory that the imports alone take."""
    keep_freed_memory()
    forget_peak()
    before = peak_bytes()
    clock = measure(size)
    on_disk = {f"{name}_bytes": size for name, size in clock.bytes_on_disk.items()}
    return {"size": size._asdict(), "imports_bytes": before, "phases": clock.as_rows(), **on_disk}


def measure_apart(size: Size) -> dict[str, Any]:
    """The same in a new process, whose memory nothing else has used, with one thread."""
    command = [sys.executable, "-m", "benchmarks.growth", "--one", "x".join(map(str, size))]
    threads = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **threads})
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def joined(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The least time and the largest memory of each phase over runs of one size."""
    phases = []
    for same in zip(*(run["phases"] for run in runs), strict=True):
        seconds = {key: min(phase[key] for phase in same) for key in ("cpu_seconds", "wall_seconds")}
        phases.append({**same[0], **seconds, "peak_bytes": max(phase["peak_bytes"] for phase in same)})
    return {**runs[0], "phases": phases}


def with_total(run: dict[str, Any]) -> dict[str, Any]:
    """The run with a last phase that sums up the others that go through interactions: once each, their loading not twice."""
    parts = [p for p in run["phases"] if p["unit"] == "interaction" and p["name"] not in ("simulate", "load an epoch")]
    seconds = {key: sum(part[key] for part in parts) for key in ("cpu_seconds", "wall_seconds")}
    total = {"name": TOTAL, "unit": "interaction", "amount": run["size"]["interactions"]}
    return {**run, "phases": [*run["phases"], {**total, **seconds, "peak_bytes": 0}]}


def slopes(runs: list[dict[str, Any]]) -> dict[str, float]:
    """For each phase the slope of log time over log work: 1 means that the time of one interaction stays the same."""
    return {
        phases[0]["name"]: slope([p["amount"] for p in phases], [p["cpu_seconds"] for p in phases])
        for phases in zip(*(run["phases"] for run in runs), strict=True)
    }


def memory_slope(runs: list[dict[str, Any]]) -> float:
    """The slope of log memory, beside that of the imports, over log entities."""
    entities = [run["size"]["users"] + run["size"]["items"] for run in runs]
    return slope(entities, [max(p["peak_bytes"] for p in run["phases"]) - run["imports_bytes"] for run in runs])


def slope(sizes: list[float], values: list[float]) -> float:
    """Least-squares slope on logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


if __name__ == "__main__":
    main()
