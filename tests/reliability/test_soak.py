"""A long stream: nothing of earlier blocks stays behind but their data, their metrics and the last test of them."""

from __future__ import annotations

import ctypes
import gc
import platform
import random
import statistics
import time
import weakref
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
import torch

from ccd_lightning.backbones import BPRMF, LightGCN, MultVAE
from ccd_lightning.callbacks import DistillationCallback, GraphSettings, StreamCheckpoint, StreamReport
from ccd_lightning.data import ContinualDataModule, StreamSource
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.modules import CollaborativeDistillation, Student, Teacher
from ccd_lightning.plan import StreamPlan
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import Interactions, Side, StageKind, StageSettings

BLOCKS, WARM_UP, LOOK_EVERY, USERS, ITEMS, DIM = 50, 10, 5, 40, 30, 512
MIB = 2**20


class Growing(StreamSource):
    """Blocks of equal size, each with a new user and a new item."""

    def table(self) -> pl.DataFrame:
        dice, rows = random.Random(0), []
        for block in range(BLOCKS):
            for user in [*range(USERS - 1), USERS + block]:
                items = [*dice.sample(range(ITEMS + block - 1), 7), ITEMS + block]
                splits = ["valid", "test", *["train"] * 6]
                rows += [(user, item, block, split) for item, split in zip(items, splits, strict=True)]
        return pl.DataFrame(rows, schema=["user", "item", "block", "split"], orient="row")


def resident_bytes() -> int:
    """What the process holds, without what it has freed and keeps for later."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


class Watch(StreamCallback):
    """Memory and CPU time of every block, and what of earlier blocks is still alive."""

    def __init__(self) -> None:
        self.resident: list[int] = []
        self.learning: list[float] = []
        self.seconds: list[float] = []
        self.survivors: list[tuple[int, str]] = []
        self.checked = 0
        self._began = self._stage_began = 0.0
        self._earlier: list[tuple[int, str, weakref.ref[Any]]] = []

    def on_block_start(self, trainer: Any, system: Any, block: Any) -> None:
        self._began = time.process_time()
        self.learning.append(0.0)

    def on_stage_start(self, trainer: Any, system: Any, stage: Any) -> None:
        self._stage_began = time.process_time()
        if stage.kind is StageKind.STUDENT_UPDATE:
            for name, proxy in system.proxies.items():
                self._remember(trainer, f"{name} proxy", proxy)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._remember(trainer, "optimizer", trainer.optimizers[0])
        if isinstance(pl_module.backbone, LightGCN):
            self._remember(trainer, "graph", pl_module.backbone._graph)
        for objective in pl_module.objectives:
            name = type(objective).__name__
            self._remember(trainer, name, objective)
            for attribute, value in vars(objective).items():
                if type(value).__module__.startswith("ccd_lightning") and not isinstance(value, Interactions | Side):
                    self._remember(trainer, f"{name}.{attribute}", value)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.learning[-1] += time.process_time() - self._stage_began

    def on_block_end(self, trainer: Any, system: Any, block: Any) -> None:
        self.seconds.append(time.process_time() - self._began)
        if (block.index + 1) % LOOK_EVERY:
            return
        gc.collect()
        self.resident.append(resident_bytes())
        # A block looks back on the one before, whose observed pairs are shared with its objectives.
        due = [entry for entry in self._earlier if entry[0] <= block.index - 2]
        self.survivors += [(born, name) for born, name, reference in due if reference() is not None]
        self.checked += len(due)
        self._earlier = [entry for entry in self._earlier if entry[0] > block.index - 2]

    def forget(self) -> None:
        """Let go of the references, which cannot go to another process."""
        self._earlier = []

    def _remember(self, trainer: Any, name: str, value: Any) -> None:
        self._earlier.append((trainer.stage.block, name, weakref.ref(value)))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    """What was seen of a long stream, in a process whose memory nothing else has used."""
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        return fresh.submit(learned_stream, tmp_path_factory.mktemp("soak")).result()


def learned_stream(folder: Path) -> Watch:
    """A stream of many blocks, whose data is next to nothing beside the wide models."""
    torch.set_num_threads(1)
    watch = Watch()
    often, never = (
        StageSettings(learning_rate=0.01, batch_size=512, max_epochs=1, evaluate_every=every) for every in (1, 0)
    )
    trainer = StreamTrainer(
        StreamPlan(often, never, never, often, often),
        callbacks=[
            DistillationCallback(graph=GraphSettings(weight=1.0)),
            StreamCheckpoint(every_seconds=0.0, keep_blocks=False),
            StreamReport(figures=False),
            watch,
        ],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=folder,
    )
    teachers = [Teacher(LightGCN(DIM)), Teacher(BPRMF(DIM), clusters=3), Teacher(MultVAE(DIM))]
    system = CollaborativeDistillation(Student(LightGCN(DIM // 4)), teachers, ks=(20,))
    trainer.fit(system, datamodule=ContinualDataModule(Growing()))
    assert trainer.record.has("distilled", BLOCKS - 1)
    assert len(list((folder / "checkpoints").iterdir())) == 2
    watch.forget()
    return watch


@pytest.mark.slow
def test_memory_stays_flat_over_many_blocks(watched: Watch) -> None:
    first = WARM_UP // LOOK_EVERY - 1
    grown = (watched.resident[-1] - watched.resident[first]) / (BLOCKS - WARM_UP)
    # The optimizers of a block's stages alone hold two mebibytes; the numbers of one more block to measure, the rows of its new
    # user and item and the gaps between them take half a one.
    assert grown < 1.0 * MIB, [round(value / MIB, 1) for value in watched.resident]


@pytest.mark.slow
def test_time_of_a_block_grows_with_its_data_alone(watched: Watch) -> None:
    third = BLOCKS // 3
    # After each block the blocks so far and the next one are measured.
    measured = [seconds / (block + 2) for block, seconds in enumerate(watched.seconds)]
    learning, everything = (
        statistics.median(values[-third:]) / statistics.median(values[1:third])
        for values in (watched.learning, measured)
    )
    # There are twice as many users and items in the end.
    assert learning < 2.5, watched.learning
    assert everything < 1.5, watched.seconds


@pytest.mark.slow
def test_nothing_of_earlier_blocks_stays_alive(watched: Watch) -> None:
    assert watched.checked > 1000
    assert not watched.survivors
