"""A small stream without a command line: built, learned, measured, gone on with and asked.

python examples/in_python.py
"""

from __future__ import annotations

import sys

import polars as pl

from ccd_lightning import (
    CollaborativeDistillation,
    ContinualDataModule,
    DistillationCallback,
    StreamCheckpoint,
    StreamPlan,
    StreamTrainer,
    Student,
    Teacher,
)
from ccd_lightning.backbones import BPRMF, LightGCN
from ccd_lightning.callbacks import Recommendations, StreamProgress, StreamReport
from ccd_lightning.data import SimulatedStream
from ccd_lightning.types import StageSettings


def main(run: str, epochs: int = 20) -> pl.DataFrame:
    """Learn three blocks, then, in another trainer as on another day, the fourth; the recommendations of the student."""
    learned(run, blocks=3, epochs=epochs)
    trainer, system, stream = learned(run, blocks=4, epochs=epochs, ckpt_path="last")
    averages = trainer.record.summary()["distilled"]["recall@20"]
    print(f"Deployed student after D_3: LA {averages['LA'][-1]:.4f}, RA {averages['RA'][-1]:.4f}")
    trainer.predict(system, datamodule=stream)
    trainer.export(system, stream)
    return pl.read_parquet(f"{run}/recommendations.parquet")


def learned(
    run: str, blocks: int, epochs: int, ckpt_path: str | None = None
) -> tuple[StreamTrainer, CollaborativeDistillation, ContinualDataModule]:
    """A trainer that has learned a stream's first blocks, those before ``ckpt_path`` by another one."""
    system = CollaborativeDistillation(
        student=Student(BPRMF(dim=8)),
        teachers=[Teacher(LightGCN(dim=32, graph="cumulative")), Teacher(BPRMF(dim=32))],
    )
    source = SimulatedStream(users=400, items=300, interactions=16_000, blocks=4)
    stream = ContinualDataModule(source, max_blocks=blocks)
    settings = StageSettings(max_epochs=epochs, learning_rate=0.005, batch_size=1024, evaluate_every=5, patience=2)
    plan = StreamPlan(base=settings, distillation=settings, student_update=settings, teacher_update=settings)
    trainer = StreamTrainer(
        plan=plan,
        default_root_dir=run,
        logger=False,
        enable_progress_bar=False,
        callbacks=[DistillationCallback(), StreamCheckpoint(), StreamProgress(), StreamReport(), Recommendations(k=10)],
    )
    trainer.fit(system, datamodule=stream, ckpt_path=ckpt_path)
    return trainer, system, stream


if __name__ == "__main__":
    print(main(sys.argv[1] if len(sys.argv) > 1 else "runs/in_python"))
