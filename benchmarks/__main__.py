"""Run every case and print one table: `make bench`."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

from benchmarks import cases, evaluation, graph_distillation, overhead, training
from benchmarks.table import Findings
from ccd_lightning.data import BlockTable, ContinualDataModule, SimulatedStream
from ccd_lightning.memory import keep_freed_memory

CASES = {**cases.CASES, **graph_distillation.CASES, **overhead.CASES}
YELP = Path(__file__).resolve().parents[2] / "shared" / "data" / "yelp_blocks.parquet"


def main() -> None:
    """Measure on the paper's Yelp blocks where they are, else on a simulated stream of the same size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--data", type=Path, default=YELP, help="a block table")
    parser.add_argument("--run", type=Path, help="a run of configs/yelp_cpu.yaml whose base teachers teach in a case")
    parser.add_argument("--output", type=Path, help="write the table to this file too, .json or .md")
    real = {**dict(training.real_cases(None)), **dict(evaluation.real_cases())}
    names = [*CASES, *real]
    parser.add_argument("--case", nargs="*", default=names, choices=names, help="cases to run")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    keep_freed_memory()
    is_real = chosen.data.exists()
    source = (
        BlockTable(str(chosen.data)) if is_real else SimulatedStream(users=15_000, items=12_000, interactions=240_000)
    )
    stream = ContinualDataModule(source)
    known = {**CASES, **real, **dict(training.real_cases(chosen.run))}
    findings = Findings(source.describe(), {})
    for name in chosen.case:
        print(name, flush=True)
        findings.rows[name] = f"no {chosen.data}" if name in real and not is_real else _found(known[name], stream)
    findings.show()
    if chosen.output is not None:
        findings.write(chosen.output)


def _found(case: Callable[[ContinualDataModule], cases.Seconds], stream: ContinualDataModule) -> cases.Seconds | str:
    try:
        return case(stream)
    except cases.SkippedError as reason:
        return str(reason)


if __name__ == "__main__":
    main()
