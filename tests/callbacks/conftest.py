"""One tiny stream with every report, run once for all the tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from lightning.pytorch import seed_everything
from typing_extensions import override

from ccd_lightning.backbones import BPRMF
from ccd_lightning.callbacks import DistillationCallback, StreamCheckpoint, StreamProgress, StreamReport
from ccd_lightning.data import ContinualDataModule, SimulatedStream
from ccd_lightning.modules import CollaborativeDistillation, Student, Teacher
from ccd_lightning.trainer import StreamTrainer


class NamedStream(SimulatedStream):
    """A stream whose users have names and whose items have numbers."""

    @override
    def table(self) -> pl.DataFrame:
        users = pl.format("user {}", pl.col("user"))
        return super().table().with_columns(users.alias("user"), pl.col("item").cast(pl.Int64) * 7 + 1000)


class Run(NamedTuple):
    folder: Path
    trainer: StreamTrainer
    system: CollaborativeDistillation
    stream: ContinualDataModule


def new_stream(blocks: int = 3) -> ContinualDataModule:
    return ContinualDataModule(NamedStream(users=90, items=60, interactions=1300, blocks=blocks), evaluation_batch=32)


def new_system() -> CollaborativeDistillation:
    return CollaborativeDistillation(Student(BPRMF(4)), [Teacher(BPRMF(8)), Teacher(BPRMF(8))], ks=(5, 20))


def new_trainer(folder: Path, *callbacks: Any, **options: Any) -> StreamTrainer:
    defaults = {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    return StreamTrainer(**{**defaults, **options}, callbacks=list(callbacks), default_root_dir=folder)


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A finished stream of three blocks with its reports."""
    folder = tmp_path_factory.mktemp("reported")
    (folder / "config.yaml").write_text("note: <script>alert('x')</script>\n")
    seed_everything(0, verbose=False)
    trainer = new_trainer(folder, DistillationCallback(), StreamCheckpoint(), StreamReport(), StreamProgress())
    system, stream = new_system(), new_stream()
    trainer.fit(system, datamodule=stream)
    yield Run(folder, trainer, system, stream)
