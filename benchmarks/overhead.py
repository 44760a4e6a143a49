"""A whole epoch of every kind of stage in Lightning beside a bare PyTorch loop over the same tensors and the same maths.

`python -m benchmarks.overhead`; on Yelp's blocks where they are, else on a simulated stream of their size. The student is
that of configs/yelp_cpu.yaml, the teacher that of the same file or, as the hardest case, one whose steps take three milliseconds.
One thread, since with more of them processor seconds also count those that wait for the next product.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from benchmarks.cases import Seconds
from benchmarks.measuring import machine, quiet_lightning
from ccd_lightning.backbones import BPRMF, Backbone, LightGCN
from ccd_lightning.callbacks import DistillationCallback, StreamCheckpoint
from ccd_lightning.callbacks.settings import GenerationSettings
from ccd_lightning.data import BlockTable, ContinualDataModule, SimulatedStream
from ccd_lightning.memory import keep_freed_memory
from ccd_lightning.modules import CollaborativeDistillation, Recommender, Student, Teacher
from ccd_lightning.objectives import Objective
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import Stage, StageKind, StageSettings

YELP = Path(__file__).resolve().parents[2] / "shared" / "data" / "yelp_blocks.parquet"
SEED = 0
LARGEST_RATIO = 1.15
TEACHERS: dict[str, Callable[[], Backbone]] = {
    "LightGCN 128": lambda: LightGCN(128, graph="cumulative"),
    "BPR-MF 64": lambda: BPRMF(64),
}
STAGES = {
    StageKind.BASE: (Stage(0, StageKind.BASE, 0), StageSettings(batch_size=4096, negatives=2, evaluate_every=0)),
    StageKind.DISTILLATION: (Stage(1, StageKind.DISTILLATION), StageSettings(batch_size=1024, evaluate_every=0)),
    StageKind.STUDENT_UPDATE: (Stage(1, StageKind.STUDENT_UPDATE), StageSettings(evaluate_every=0)),
    StageKind.TEACHER_UPDATE: (Stage(1, StageKind.TEACHER_UPDATE, 0), StageSettings(batch_size=4096, evaluate_every=0)),
}


class Epochs(NamedTuple):
    """Median processor seconds of an epoch, the median ratio of the rounds, and what the fit needs beside its epochs."""

    bare: float
    ours: float
    ratio: float
    around: float
    steps: int


class _EpochClock(Callback):
    """Notes the time at the start of every epoch and at the end of the last."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.times.append(time.process_time())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.times.append(time.process_time())


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=YELP, help="a block table")
    parser.add_argument("--kinds", nargs="+", default=[kind.value for kind in STAGES], help="kinds of stages")
    parser.add_argument("--teacher", choices=TEACHERS, default="LightGCN 128", help="which teacher learns")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of both loops in turn")
    chosen = parser.parse_args()
    quiet_lightning()
    keep_freed_memory()
    simulated = SimulatedStream(users=15_000, items=12_000, interactions=240_000)
    stream = ContinualDataModule(BlockTable(chosen.data) if chosen.data.exists() else simulated)
    table = Table(
        "stage",
        "steps",
        "bare s",
        "ours s",
        "ratio",
        "around s",
        title=f"{stream.source.describe()}, {chosen.teacher}, {machine()}",
    )
    for name in chosen.kinds:
        found = compare(stream, StageKind(name), chosen.epochs, chosen.rounds, chosen.teacher)
        row = (found.bare, found.ours, found.ratio, found.around)
        table.add_row(name, str(found.steps), *(f"{value:.3f}" for value in row))
    Console(width=120).print(table)


def compare(stream: ContinualDataModule, kind: StageKind, epochs: int, rounds: int, teacher: str) -> Epochs:
    """Both loops in turn from the same state, now one first, now the other.

    Processor seconds, since other work on the machine would sway the ratio; and a ratio for each round, since the speed of
    the machine drifts from one to the next by more than the loops differ.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    stage, settings = STAGES[kind]
    bare, ours, around = [], [], []
    steps = 0
    for round_ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for is_ours in (False, True) if round_ % 2 == 0 else (True, False):
                trainer, learner = prepared(stream, stage, settings, folder, teacher)
                if is_ours:
                    started = time.process_time()
                    ours.append(fitted_epochs(trainer, learner, stream, epochs))
                    around.append(time.process_time() - started - sum(ours[-1]))
                else:
                    steps = sum(len(batches) for batches in learner.epoch_batches())
                    bare.append(_bare_epochs(learner, epochs))
    torch.set_num_threads(threads)
    seconds = [statistics.median(chain.from_iterable(found)) for found in (bare, ours)]
    ratios = [statistics.median(own) / statistics.median(other) for own, other in zip(ours, bare, strict=True)]
    return Epochs(*seconds, statistics.median(ratios), statistics.median(around), steps)


def fitted_epochs(
    trainer: StreamTrainer, learner: Recommender, stream: ContinualDataModule, epochs: int
) -> list[float]:
    """Processor seconds of each epoch of one Lightning fit, loading and bookkeeping included.

    Args:
        trainer: an unused one.
        learner: a model whose stage has begun.
        stream: where its history comes from.
        epochs: how many.
    """
    clock = _EpochClock()
    trainer.callbacks.insert(0, clock)
    with trainer._fresh_loops(learner, replace(learner.settings, max_epochs=epochs), stream.validates):
        super(StreamTrainer, trainer).fit(learner, datamodule=stream)
    return [after - before for before, after in pairwise(clock.times)]


def prepared(
    stream: ContinualDataModule, stage: Stage, settings: StageSettings, folder: str, teacher: str
) -> tuple[StreamTrainer, Recommender]:
    """A stage that is ready to begin, always in the same state."""
    torch.manual_seed(SEED)
    system = CollaborativeDistillation(Student(LightGCN(8, graph="block")), [Teacher(TEACHERS[teacher]())])
    distillation = DistillationCallback(GenerationSettings(sample=1024))
    trainer = quiet_trainer(folder, distillation)
    trainer.stream = stream
    if stage.block:
        for learner in (*system.members(), system.student):
            learner.begin_stage(Stage(0, StageKind.BASE), settings, stream.history(0), SEED, 0)
            learner.end_stage()
    with torch.no_grad():
        distillation.on_stage_start(trainer, system, stage)
    learner = system.learner(stage)
    learner.begin_stage(stage, settings, stream.history(stage.block), SEED, 0)
    return trainer, learner


def quiet_trainer(folder: str, *callbacks: Callback) -> StreamTrainer:
    """A Trainer that saves and reports as the command line's does, without a logger."""
    return StreamTrainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[*callbacks, StreamCheckpoint()],
        default_root_dir=folder,
    )


def _bare_epochs(learner: Recommender, epochs: int) -> list[float]:
    """What a script without any framework would run: the objectives, the backward pass, the optimizer."""
    optimizer = learner.configure_optimizers()
    objectives: list[Objective] = list(learner.objectives)
    seconds = []
    for epoch in range(epochs):
        started = time.process_time()
        for batches in learner.epoch_batches():
            for batch in batches:
                optimizer.zero_grad()
                with learner.backbone.shared():
                    asked = [objective for objective in objectives if isinstance(batch, objective.batch_types)]
                    loss = sum(objective.weight(epoch) * objective(learner.backbone, batch) for objective in asked)
                loss.backward()
                optimizer.step()
        seconds.append(time.process_time() - started)
    return seconds


def case(stream: ContinualDataModule, kind: StageKind, teacher: str) -> Seconds:
    """One kind as a case of `python -m benchmarks`."""
    found = compare(stream, kind, epochs=4, rounds=3, teacher=teacher)
    note = f"at most {LARGEST_RATIO} x, here {found.ratio:.2f} x"
    return Seconds(found.bare, found.ours, "a bare PyTorch loop, an epoch", note=note)


CASES = {
    **{f"framework overhead, {kind.value}": partial(case, kind=kind, teacher="LightGCN 128") for kind in STAGES},
    **{
        f"framework overhead, {kind.value}, BPR-MF 64": partial(case, kind=kind, teacher="BPR-MF 64")
        for kind in (StageKind.BASE, StageKind.TEACHER_UPDATE)
    },
}


if __name__ == "__main__":
    main()
