"""Run every case and print one table: `make bench`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from benchmarks import cases, evaluation, graph_distillation, overhead, training, whole
from benchmarks.measuring import quiet_lightning
from benchmarks.table import Findings
from ccd_lightning.data import BlockTable, ContinualDataModule, SimulatedStream
from ccd_lightning.memory import keep_freed_memory

Case = Callable[[ContinualDataModule], cases.Seconds]
CASES: dict[str, Case] = {**cases.CASES, **graph_distillation.CASES, **overhead.CASES, "growth": whole.growing_stream}
YELP = Path(__file__).resolve().parents[2] / "shared" / "data" / "yelp_blocks.parquet"


def main() -> None:
    """Measure on the paper's Yelp blocks where they are, else on a simulated stream of the same size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--data", type=Path, default=YELP, help="a block table")
    teachers = 'a run of configs/yelp_cpu.yaml whose base teachers teach in "stage 1 to recall", in place of that of "whole stream"'
    parser.add_argument("--run", type=Path, help=teachers)
    parser.add_argument("--output", type=Path, help="write the table to this file too, .json or .md")
    names = [*dict(_real_cases(Path())), *CASES]
    parser.add_argument("--case", nargs="*", default=names, choices=names, help="cases to run")
    chosen = parser.parse_args()
    quiet_lightning()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as scratch:
        findings = _measured(chosen.case, chosen.data, dict(_real_cases(Path(scratch) / "stream", chosen.run)))
    findings.show()
    if chosen.output is not None:
        findings.write(chosen.output)


def _measured(names: Iterable[str], data: Path, real: Mapping[str, Case]) -> Findings:
    is_real = data.exists()
    simulated = SimulatedStream(users=15_000, items=12_000, interactions=240_000)
    source = BlockTable(str(data)) if is_real else simulated
    stream = ContinualDataModule(source)
    findings = Findings(source.describe(), {})
    for name in names:
        print(name, flush=True)
        unfit = name in real and not is_real
        findings.rows[name] = f"no {data}" if unfit else _found({**real, **CASES}[name], stream)
    return findings


def _real_cases(fitted: Path, run: Path | None = None) -> Iterator[tuple[str, Case]]:
    """The cases on real data: the whole stream, which is kept in ``fitted``, and others, one of which uses it, or ``run``."""
    yield "whole stream", partial(whole.whole_stream, folder=fitted)
    yield from training.real_cases(run or fitted)
    yield from evaluation.real_cases()


def _found(case: Case, stream: ContinualDataModule) -> cases.Seconds | str:
    try:
        return case(stream)
    except cases.SkippedError as reason:
        return str(reason)


if __name__ == "__main__":
    main()
