"""What a forked process is asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything

from ccd_lightning.backbones import BPRMF, LightGCN, MultVAE
from ccd_lightning.callbacks import (
    DistillationCallback,
    GenerationSettings,
    GraphSettings,
    StreamCheckpoint,
    StreamReport,
)
from ccd_lightning.data import ContinualDataModule, SimulatedStream
from ccd_lightning.modules import CollaborativeDistillation, Student, Teacher
from ccd_lightning.plan import StreamPlan
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import StageSettings

from .saboteur import Saboteur

TEACHERS, BLOCKS, EPOCHS = 3, 3, 3


def plan() -> StreamPlan:
    kinds = {"base": 1, "first_distillation": 0, "distillation": 2, "student_update": 1, "teacher_update": 2}
    return StreamPlan(
        **{
            kind: StageSettings(max_epochs=EPOCHS, learning_rate=0.01, batch_size=400, evaluate_every=every, patience=5)
            for kind, every in kinds.items()
        }
    )


def mixed_system() -> CollaborativeDistillation:
    teachers = [Teacher(LightGCN(8)), Teacher(BPRMF(8), clusters=3), Teacher(MultVAE(8))]
    return CollaborativeDistillation(Student(LightGCN(4)), teachers, ks=(5, 20))


def learn_stream(
    folder: str, resume: bool = False, every_seconds: float = 60.0, point: dict[str, Any] | None = None
) -> None:
    """Learn a stream with teachers of three kinds, and be struck at a point of it."""
    seed_everything(0, verbose=False)
    saboteur = [Saboteur(**point)] if point else []
    trainer = StreamTrainer(
        plan(),
        callbacks=[
            DistillationCallback(
                graph=GraphSettings(weight=1.0, sample=20), generation=GenerationSettings(sample=20, exclusion=5)
            ),
            StreamCheckpoint(every_seconds=every_seconds),
            StreamReport(figures=False),
            *saboteur,
        ],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=Path(folder),
    )
    source = SimulatedStream(users=100, items=80, interactions=1700, blocks=BLOCKS)
    trainer.fit(mixed_system(), datamodule=ContinualDataModule(source), ckpt_path="last" if resume else None)


def command(arguments: list[str]) -> None:
    """A command line, as `train.py` runs it."""
    from ccd_lightning.cli import main

    main(arguments)
