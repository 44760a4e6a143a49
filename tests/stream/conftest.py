"""Tiny streams that run in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import seed_everything

from ccd_lightning.backbones import BPRMF, LightGCN
from ccd_lightning.callbacks import DistillationCallback, StreamCheckpoint
from ccd_lightning.data import ContinualDataModule, SimulatedStream
from ccd_lightning.modules import CollaborativeDistillation, Student, Teacher
from ccd_lightning.trainer import StreamTrainer

RunStream = Callable[..., tuple[StreamTrainer, CollaborativeDistillation]]


def small_source(blocks: int = 3, seed: int = 0) -> SimulatedStream:
    return SimulatedStream(seed=seed, users=120, items=90, interactions=2400, blocks=blocks)


def small_system(teachers: list[Any] | None = None, student: Any = None) -> CollaborativeDistillation:
    members = [LightGCN(8), BPRMF(8)] if teachers is None else teachers
    return CollaborativeDistillation(
        Student(LightGCN(4) if student is None else student), [Teacher(member) for member in members], ks=(5, 20)
    )


@pytest.fixture
def run_stream() -> RunStream:
    """Run a tiny stream into a folder; keyword arguments replace its parts."""

    def run(
        folder: Path,
        system: CollaborativeDistillation | None = None,
        source: Any = None,
        callbacks: tuple[Any, ...] = (),
        distillation: DistillationCallback | None = None,
        ckpt_path: str | None = None,
        seed: int = 0,
        every_seconds: float = 60.0,
        **trainer: Any,
    ) -> tuple[StreamTrainer, CollaborativeDistillation]:
        seed_everything(seed, verbose=False)
        system = small_system() if system is None else system
        stream = StreamTrainer(
            **{"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_progress_bar": False, **trainer},
            callbacks=[
                distillation or DistillationCallback(),
                StreamCheckpoint(every_seconds=every_seconds),
                *callbacks,
            ],
            default_root_dir=folder,
        )
        datamodule = ContinualDataModule(small_source() if source is None else source, seed=seed)
        stream.fit(system, datamodule=datamodule, ckpt_path=ckpt_path)
        return stream, system

    return run
