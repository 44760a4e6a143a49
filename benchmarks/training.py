"""Epochs of training on the paper's Yelp blocks, against plain PyTorch on the same batches."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from benchmarks.cases import Seconds, SkippedError
from benchmarks.fitting import EpochClock, PlainModel, epoch_seconds, fit_stage, plain_epoch
from benchmarks.measuring import quiet_lightning
from ccd_lightning.backbones import BPRMF, EmbeddingBackbone, LightGCN
from ccd_lightning.checkpoint import read_checkpoint
from ccd_lightning.data import ContinualDataModule, PairSet
from ccd_lightning.data.history import History
from ccd_lightning.memory import keep_freed_memory
from ccd_lightning.modules import BlockMetrics, Student, Teacher, TeacherSystem
from ccd_lightning.objectives import (
    RankingDistillation,
    Replay,
    ReplayDraw,
    ReplaySource,
    pairs_of_lists,
    top_items,
    top_lists,
)
from ccd_lightning.record import peak_resident_bytes
from ccd_lightning.types import ListBatch, RankingBatch, Side, Stage, StageKind, StageSettings

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "yelp_cpu.yaml"
LIST_LENGTH = 40


def _random_lists(history: History) -> dict[Side, Tensor]:
    """Lists of the length of the teacher system's; what is listed does not change how long a step takes."""
    generator = torch.Generator().manual_seed(0)
    users, items = history.block.num_users, history.block.num_items
    return {
        Side.USER: torch.randint(items, (users, LIST_LENGTH), generator=generator),
        Side.ITEM: torch.randint(users, (items, LIST_LENGTH), generator=generator),
    }


def _learning_student(
    history: History, lists: dict[Side, Tensor], sample: int | None, dim: int = 8
) -> tuple[Student, PairSet]:
    observed = history.observed("cumulative")
    shape = (observed.num_rows, observed.num_columns)
    by_item = pairs_of_lists(lists[Side.ITEM], *reversed(shape)).transpose()
    excluded = observed.union(pairs_of_lists(lists[Side.USER], *shape), by_item)
    student = Student(LightGCN(dim, graph="block"))
    student.role = "student"
    for side, pairs in ((Side.USER, excluded), (Side.ITEM, excluded.transpose())):
        student.objectives.append(RankingDistillation(lists[side], pairs, side, 0.01, sample))
    return student, excluded


def _distillation_epochs(stream: ContinualDataModule, sample: int | None, epochs: int) -> list[float]:
    history = stream.history(0)
    student, _ = _learning_student(history, _random_lists(history), sample)
    settings = StageSettings(max_epochs=epochs, learning_rate=5e-3, batch_size=1024, evaluate_every=0)
    return epoch_seconds(student, stream, Stage(0, StageKind.DISTILLATION), settings)


def _plain_distillation_epoch(stream: ContinualDataModule) -> float:
    history, stage = stream.history(0), Stage(0, StageKind.DISTILLATION)
    lists = _random_lists(history)
    student, excluded = _learning_student(history, lists, None)
    student.begin_stage(stage, StageSettings(batch_size=1024, evaluate_every=0), history, 0, 0)
    assert isinstance(student.backbone, EmbeddingBackbone)
    plain = PlainModel(student.backbone, history)

    def loss(batch: RankingBatch | ListBatch) -> Tensor:
        lists_loss = plain.list_loss(batch, lists, excluded)
        return lists_loss + plain.loss(batch) if isinstance(batch, RankingBatch) else lists_loss

    return plain_epoch(student, loss)


def _against(
    baseline: float, epochs: list[float], against: str, target: float | None = None, note: str = ""
) -> Seconds:
    return Seconds(baseline, statistics.median(epochs), against, target, note, min(epochs))


def _peak_note(source: Any, sample: int | None) -> str:
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        peak = fresh.submit(_peak_of, source, sample).result() / 1e9
    return f"peak {peak:.2f} GB, at most 1.2"


def _peak_of(source: Any, sample: int | None) -> int:
    quiet_lightning()
    keep_freed_memory()
    stream = ContinualDataModule(source, max_blocks=1)
    _distillation_epochs(stream, sample, 2)
    status = Path("/proc/self/status")
    if not status.exists():
        return peak_resident_bytes()
    # Linux lets a child begin with its parent's largest size; only this one starts anew with the program.
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def stage_1_epoch_exact(stream: ContinualDataModule) -> Seconds:
    """Stage 1 on D_0: 118 steps with the users' lists and 11 with the items', a student of 8 dimensions."""
    peak = _peak_note(stream.source, None)
    ours, baseline = _distillation_epochs(stream, None, 4), _plain_distillation_epoch(stream)
    return _against(baseline, ours, "autograd through the score matrix", 5.0, peak)


def stage_1_epoch_sampled(stream: ContinualDataModule) -> Seconds:
    """The same with 1024 uninteresting entities a batch, against the exact epoch."""
    peak = _peak_note(stream.source, 1024)
    exact, sampled = _distillation_epochs(stream, None, 4), _distillation_epochs(stream, 1024, 16)
    return _against(statistics.median(exact), sampled, "our exact epoch", 0.8, peak)


def stage_1_to_recall(stream: ContinualDataModule, run: Path) -> Seconds:
    """The first distillation of configs/yelp_cpu.yaml from a run's base teachers, with its validation left out."""
    checkpoints = sorted((run / "checkpoints").glob("*-block0-distillation.ckpt"))
    if not checkpoints:
        raise SkippedError(
            'needs the case "whole stream" before it, or --run, the folder of a run of configs/yelp_cpu.yaml'
        )
    history = stream.history(0)
    users, items = top_lists(
        _teachers_of(checkpoints[0], history), LIST_LENGTH, history.observed("cumulative"), torch.device("cpu")
    )
    config = OmegaConf.load(CONFIG)
    settings = StageSettings(**{**config.trainer.plan.first_distillation, "evaluate_every": 0})
    sample = config.distillation.init_args.generation.sample
    student, _ = _learning_student(history, {Side.USER: users, Side.ITEM: items}, sample)
    clock = EpochClock()
    fit_stage(student, stream, Stage(0, StageKind.DISTILLATION), settings, [clock])
    taken = (clock.ends[-1] - clock.ends[0]) * len(clock.ends) / (len(clock.ends) - 1)
    found = f"test Recall@20 {_test_recall(student, stream):.4f} after {len(clock.ends)} epochs, aim 0.111"
    return Seconds(
        _plain_distillation_epoch(stream) * len(clock.ends), taken, "as many plain exact epochs", 30.0, found
    )


def _teachers_of(checkpoint: Path, history: History) -> TeacherSystem:
    state = read_checkpoint(checkpoint)["system"]
    numbers = {name.split(".")[1] for name in state if name.startswith("teachers.")}
    members = []
    for number in sorted(numbers):
        prefix = f"teachers.{number}.backbone."
        model = LightGCN(128)
        model.load_state_dict({name[len(prefix) :]: state[name] for name in state if name.startswith(prefix)})
        if (model.num_users, model.num_items) != (history.block.num_users, history.block.num_items):
            raise SkippedError(f"the teachers of {checkpoint} were trained on other data")
        model.observe(history)
        members.append(model)
    return TeacherSystem(members)


@torch.no_grad()
def _test_recall(student: Student, stream: ContinualDataModule) -> float:
    stream.test_blocks = (0,)
    metrics = BlockMetrics((20,))
    for batch in stream.test_dataloader():
        metrics.update(student.backbone.scores(batch.users), batch.targets[0], len(batch.users))
    return metrics.compute()["all"]["recall@20"]


def _pairwise_epoch(stream: ContinualDataModule, backbone: EmbeddingBackbone, target: float) -> Seconds:
    """RecBole's case: the train rows of D_0, batches of 2048, one negative."""
    history, stage = stream.history(0), Stage(0, StageKind.BASE, 0)
    settings = StageSettings(max_epochs=6, batch_size=2048, evaluate_every=0)
    teacher = Teacher(backbone)
    ours = epoch_seconds(teacher, stream, stage, settings)
    baseline = plain_epoch(teacher, PlainModel(backbone, history).loss)
    against = "torch.sparse on COO, indexing" if isinstance(backbone, LightGCN) else "indexing"
    return _against(baseline, ours, f"plain loop, {against}", target)


def lightgcn_128_epoch(stream: ContinualDataModule) -> Seconds:
    """LightGCN of 128 dimensions and 2 layers."""
    return _pairwise_epoch(stream, LightGCN(128), 3.5)


def lightgcn_8_epoch(stream: ContinualDataModule) -> Seconds:
    """LightGCN of 8 dimensions and 2 layers."""
    return _pairwise_epoch(stream, LightGCN(8), 0.5)


def bpr_mf_64_epoch(stream: ContinualDataModule) -> Seconds:
    """BPR-MF of 64 dimensions."""
    return _pairwise_epoch(stream, BPRMF(64), 0.30)


def teacher_update_epoch(stream: ContinualDataModule) -> Seconds:
    """Stage 3 on D_1: BPR and replay of nine pairs a user, cumulative graph, 128 dimensions."""
    first, second = stream.history(0), stream.history(1)
    teacher = Teacher(LightGCN(128))
    generator = torch.Generator().manual_seed(0)
    for history in (first, second):
        teacher.backbone.meet(history, "neighbours", 20, generator)
    rankings = top_items(teacher.backbone, 100, second.observed("cumulative"), torch.device("cpu"))
    draw = ReplayDraw([ReplaySource(name, rankings, 3) for name in ("stability", "plasticity", "student")], eps=1e-4)
    teacher.objectives.append(Replay(draw))
    settings = StageSettings(max_epochs=4, batch_size=4096, evaluate_every=0)
    ours = epoch_seconds(teacher, stream, Stage(1, StageKind.TEACHER_UPDATE, 0), settings)
    assert isinstance(teacher.backbone, LightGCN)
    baseline = plain_epoch(teacher, PlainModel(teacher.backbone, second).loss)
    return _against(baseline, ours, "plain loop, torch.sparse on COO, indexing")


def real_cases(run: Path) -> Iterator[tuple[str, Callable[[ContinualDataModule], Seconds]]]:
    """Names and cases, all of them on real data.

    Args:
        run: folder of a run of configs/yelp_cpu.yaml whose base teachers shall teach.
    """
    for case in (
        stage_1_epoch_exact,
        stage_1_epoch_sampled,
        lightgcn_128_epoch,
        lightgcn_8_epoch,
        bpr_mf_64_epoch,
        teacher_update_epoch,
    ):
        yield case.__name__.replace("_", " "), case
    yield "stage 1 to recall", lambda stream: stage_1_to_recall(stream, run)
