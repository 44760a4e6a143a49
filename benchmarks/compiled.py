"""Steps of whole stages with and without `torch.compile`: `python -m benchmarks.compiled`.

A stage is fitted by itself and models grow between stages, so what is compiled is compiled anew for every one of them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import machine, quiet_lightning
from benchmarks.overhead import STAGES, YELP, prepared
from ccd_lightning.data import BlockTable, ContinualDataModule
from ccd_lightning.memory import keep_freed_memory
from ccd_lightning.modules import Recommender
from ccd_lightning.types import StageKind

STAGES_OF = (
    (StageKind.TEACHER_UPDATE, "BPR-MF 64"),
    (StageKind.TEACHER_UPDATE, "LightGCN 128"),
    (StageKind.STUDENT_UPDATE, "LightGCN 128"),
)
EPOCHS = 6


def main() -> None:
    """Print milliseconds of a step, and what compiling took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=YELP, help="a block table")
    chosen = parser.parse_args()
    quiet_lightning()
    keep_freed_memory()
    torch.set_num_threads(1)
    stream = ContinualDataModule(BlockTable(str(chosen.data)))
    table = Table(
        "stage", "model", "eager ms", "compiled ms", "ratio", "first epoch s", "graph breaks", title=machine()
    )
    for kind, teacher in STAGES_OF:
        with tempfile.TemporaryDirectory() as folder:
            _, learner = prepared(stream, *STAGES[kind], folder, teacher)
            torch._dynamo.reset()
            torch._dynamo.utils.counters.clear()
            eager, _ = _steps(learner, learner.training_step)
            compiled, first = _steps(learner, torch.compile(learner.training_step, dynamic=True))
            breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
        model = "LightGCN 8" if kind is StageKind.STUDENT_UPDATE else teacher
        row = (f"{eager:.2f}", f"{compiled:.2f}", f"{compiled / eager:.2f}", f"{first:.1f}", str(breaks))
        table.add_row(kind.value, model, *row)
    Console(width=120).print(table)


def _steps(learner: Recommender, step: Callable[..., torch.Tensor]) -> tuple[float, float]:
    """Median processor milliseconds of a step over all epochs but the first, and the wall seconds of that one."""
    optimizer = learner.configure_optimizers()
    milliseconds, first = [], 0.0
    for epoch in range(EPOCHS):
        batches = [batch for batches in learner.epoch_batches() for batch in batches]
        began, started = time.perf_counter(), time.process_time()
        for index, batch in enumerate(batches):
            optimizer.zero_grad()
            step(batch, index).backward()
            optimizer.step()
        if epoch == 0:
            first = time.perf_counter() - began
        else:
            milliseconds.append((time.process_time() - started) / len(batches) * 1e3)
        learner._epoch_losses, learner._epoch_steps = {}, {}
    return statistics.median(milliseconds), first


if __name__ == "__main__":
    main()
