"""The phases of a stream of one size, from the source to a checkpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import polars as pl
import torch
from torch import Tensor

from benchmarks.measuring import Clock
from ccd_lightning.backbones import BPRMF, Backbone
from ccd_lightning.checkpoint import read_checkpoint, write_checkpoint
from ccd_lightning.data import ContinualDataModule, EvaluationLoader, SimulatedStream, StreamSource
from ccd_lightning.modules import CollaborativeDistillation, Recommender, Student, Teacher, rank_block
from ccd_lightning.objectives import (
    RankingDistillation,
    Rankings,
    Replay,
    ReplayDraw,
    ReplaySource,
    pairs_of_lists,
    top_items,
    top_lists,
)
from ccd_lightning.resume import stream_state
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import Batch, Side, Split, Stage, StageKind, StageSettings

DIM, LIST, SAMPLE = 16, 40, 1024
SCORED_USERS = 512
"""Users of the phases whose work is users times items: the whole would take hours at the largest size, by its nature."""

STEPS = 40
"""Steps of an epoch at every size; see `settings_for`."""


class Size(NamedTuple):
    """How large a stream is."""

    users: int
    items: int
    interactions: int


@dataclass
class _Kept(StreamSource):
    """A table that is there already."""

    rows: pl.DataFrame

    def table(self) -> pl.DataFrame:
        return self.rows


class _Some:
    """The first users of a model, as a scorer."""

    def __init__(self, model: Backbone, users: int) -> None:
        self.model, self.num_users = model, min(users, model.num_users)

    @property
    def num_items(self) -> int:
        return self.model.num_items

    def scores(self, users: Tensor) -> Tensor:
        return self.model.scores(users)


def settings_for(rows: int) -> StageSettings:
    """Batches in proportion to the data.

    Adam with weight decay moves every row of the tables in every step, so with batches of a fixed size an epoch would cost
    (interactions / batch) * entities.
    """
    return StageSettings(batch_size=max(1, -(-rows // STEPS)), learning_rate=0.002)


def measure(size: Size) -> Clock:
    """Run every phase once.

    Args:
        size: of the simulated stream; 9 of 10 interactions are in D_0, the rest in D_1 with a tenth of the entities.
    """
    clock = Clock()
    stream = _data(clock, size)
    torch.manual_seed(0)
    teacher, student = Teacher(BPRMF(DIM)), Student(BPRMF(DIM // 2))
    system = CollaborativeDistillation(student, [teacher])
    _training(clock, stream, system)
    _knowledge(clock, stream, system)
    _evaluation(clock, stream, system)
    _checkpoint(clock, stream, system)
    return clock


def _data(clock: Clock, size: Size) -> ContinualDataModule:
    source = SimulatedStream(**size._asdict(), blocks=2, base_fraction=0.9, block_fraction=0.1)
    with clock.phase("simulate", "interaction") as phase:
        table = source.table()
        phase.amount = table.height
    rows = table.height
    stream = ContinualDataModule(_Kept(table))
    with clock.phase("blocks and ids", "interaction", rows):
        assert len(stream.blocks) == 2
    del table
    stream.source = source
    with clock.phase("pair sets", "interaction", rows):
        for block in range(2):
            history = stream.history(block)
            history.observed("cumulative").draw_outside(torch.zeros(1, dtype=torch.long), 1, torch.Generator())
    with clock.phase("evaluation sets", "interaction", rows):
        for split in (Split.VALID, Split.TEST):
            EvaluationLoader(stream.blocks, split, SCORED_USERS)
    return stream


def _training(clock: Clock, stream: ContinualDataModule, system: CollaborativeDistillation) -> None:
    teacher, student = system.members()[0], system.student
    rows = stream.blocks[0].train.size
    teacher.begin_stage(Stage(0, StageKind.BASE, 0), settings_for(rows), stream.history(0), 0, 0)
    with clock.phase("load an epoch", "interaction", rows):
        seen = sum(batch.users.numel() for batches in teacher.epoch_batches() for batch in batches)
    assert seen == rows
    with clock.phase("BPR-MF epoch", "interaction", rows):
        _epoch(teacher)
    teacher.end_stage()
    _steps_of_one_size(clock, teacher, stream)
    student.begin_stage(Stage(0, StageKind.DISTILLATION), settings_for(rows), stream.history(0), 0, 0)
    student.end_stage()
    with clock.phase("new rows", "interaction", stream.blocks[1].train.size):
        for model in (teacher, student):
            model.backbone.meet(stream.history(1), "neighbours", 20, torch.Generator().manual_seed(0))


def _steps_of_one_size(clock: Clock, teacher: Recommender, stream: ContinualDataModule) -> None:
    """Each step moves the rows of all the entities, however few are in its batch."""
    steps, optimizer = 20, teacher.configure_optimizers()
    teacher.begin_stage(Stage(0, StageKind.BASE, 0), StageSettings(batch_size=2048), stream.history(0), 0, 0)
    batches = list(islice(teacher.epoch_batches()[0], steps))
    entities = teacher.backbone.num_users + teacher.backbone.num_items
    with clock.phase("BPR-MF steps of 2048 rows", "entity", entities * len(batches)):
        _learn(teacher, optimizer, batches)
    teacher.end_stage()


def _knowledge(clock: Clock, stream: ContinualDataModule, system: CollaborativeDistillation) -> None:
    teacher, student, history = system.members()[0].backbone, system.student, stream.history(1)
    observed, cpu = history.observed("cumulative"), torch.device("cpu")
    some = _Some(teacher, SCORED_USERS)
    with clock.phase("ranking lists", "score", some.num_users * some.num_items):
        top_lists(some, LIST, observed, cpu)
    draw = torch.Generator().manual_seed(0)
    # Lists of all the entities as they would be, without the scoring.
    users = torch.randint(observed.num_columns, (observed.num_rows, LIST), generator=draw)
    items = torch.randint(observed.num_rows, (observed.num_columns, LIST), generator=draw)
    shape = (observed.num_rows, observed.num_columns)
    with clock.phase("exclusion sets", "interaction", observed.size + users.numel() + items.numel()):
        excluded = observed.union(pairs_of_lists(users, *shape), pairs_of_lists(items, *reversed(shape)).transpose())
        transposed = excluded.transpose()
    student.objectives.extend(
        [
            RankingDistillation(users, excluded, Side.USER, sample=SAMPLE),
            RankingDistillation(items, transposed, Side.ITEM, sample=SAMPLE),
        ]
    )
    rows = history.block.train.size
    student.begin_stage(Stage(1, StageKind.DISTILLATION), settings_for(rows), history, 0, 0)
    with clock.phase("sampled Stage 1 epoch", "interaction", rows):
        _epoch(student)
    student.end_stage()
    del excluded, transposed
    _replay(clock, student, top_items(some, 100, observed, cpu))


def _replay(clock: Clock, student: Recommender, remembered: Rankings) -> None:
    replay = Replay(ReplayDraw([ReplaySource("stability", remembered, 3)], eps=1e-4))
    with clock.phase("replay draw", "score", remembered.items.shape[0] * student.backbone.num_items):
        replay.refresh(student.backbone, torch.Generator().manual_seed(0))


@torch.no_grad()
def _evaluation(clock: Clock, stream: ContinualDataModule, system: CollaborativeDistillation) -> None:
    backbone = system.student.backbone
    loader = EvaluationLoader(stream.blocks, Split.TEST, SCORED_USERS)
    batch = next(iter(loader))
    with clock.phase("evaluation", "score", batch.users.numel() * backbone.num_items):
        batch = next(iter(loader))
        scores = backbone.scores(batch.users)
        for targets in batch.targets:
            rank_block(scores, targets, 100)


def _checkpoint(clock: Clock, stream: ContinualDataModule, system: CollaborativeDistillation) -> None:
    for name in system.proxies:
        system.update_proxy(name, 0.9)
    with tempfile.TemporaryDirectory() as folder:
        trainer = StreamTrainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=folder)
        trainer.last_stage = Stage(1, StageKind.DISTILLATION)
        path = Path(folder) / "one.ckpt"
        entities = system.student.backbone.num_users + system.student.backbone.num_items
        with clock.phase("write a checkpoint", "entity", entities):
            write_checkpoint(path, stream_state(trainer, system, stream))
        with clock.phase("read a checkpoint", "entity", entities):
            read_checkpoint(path)
        with clock.phase("id maps on disk", "entity", entities):
            for side in ("users", "items"):
                getattr(stream.stream, side).save(Path(folder) / f"{side}.parquet")
        clock.bytes_on_disk = {
            "checkpoint": path.stat().st_size,
            "id_map": sum(file.stat().st_size for file in Path(folder).glob("*.parquet")),
        }


def _epoch(learner: Recommender) -> None:
    optimizer = learner.configure_optimizers()
    for batches in learner.epoch_batches():
        _learn(learner, optimizer, batches)


def _learn(learner: Recommender, optimizer: torch.optim.Optimizer, batches: Iterable[Batch]) -> None:
    for index, batch in enumerate(batches):
        optimizer.zero_grad()
        learner.training_step(batch, index).backward()
        optimizer.step()
