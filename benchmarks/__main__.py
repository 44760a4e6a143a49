"""Run every case and print one table: `make bench`."""

from __future__ import annotations

import argparse
import platform
import warnings
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import cases, graph_distillation
from ccd_lightning.data import BlockTable, ContinualDataModule, SimulatedStream

CASES = {**cases.CASES, **graph_distillation.CASES}
YELP = Path(__file__).resolve().parents[2] / "shared" / "data" / "yelp_blocks.parquet"


def main() -> None:
    """Measure on the paper's Yelp blocks where they are, else on a simulated stream of the same size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=YELP, help="a block table")
    parser.add_argument("--case", nargs="*", default=list(CASES), choices=list(CASES), help="cases to run")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    source = (
        BlockTable(str(chosen.data))
        if chosen.data.exists()
        else SimulatedStream(users=15_000, items=12_000, interactions=240_000)
    )
    stream = ContinualDataModule(source)
    table = Table("case", "baseline", "baseline s", "ours s", "ratio", title=f"{source.describe()}, {machine()}")
    for name in chosen.case:
        found = CASES[name](stream)
        ratio = found.ours / found.baseline
        table.add_row(name, found.against, f"{found.baseline:.4f}", f"{found.ours:.4f}", f"{ratio:.3f}")
    Console(width=120).print(table)


def machine() -> str:
    """Words for the machine that measured."""
    return (
        f"{torch.get_num_threads()} threads of {platform.processor() or platform.machine()}, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
