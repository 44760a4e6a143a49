"""A whole stream with embedding tables sharded by rows over processes: `python examples/sharded_tables.py`.

Lightning's ModelParallelStrategy starts the processes; during a fit each of them holds its share of the rows of every
BPR-MF table, of their gradients and of Adam's states. Between the stages the tables are whole on every process: new users
and items are appended, proxies merged and rankings taken as ever. With one process it learns the same weights:
`--processes 1`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy

from ccd_lightning.backbones import BPRMF
from ccd_lightning.callbacks import DistillationCallback, GenerationSettings, GraphSettings, StreamCheckpoint
from ccd_lightning.data import ContinualDataModule, SimulatedStream
from ccd_lightning.modules import CollaborativeDistillation, Student, Teacher
from ccd_lightning.plan import StreamPlan
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import StageSettings


def main() -> None:
    """Learn a simulated stream; the first process writes the system's parameters."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5, help="of each stage")
    parser.add_argument("--folder", type=Path, default=Path("runs/sharded_tables"))
    chosen = parser.parse_args()
    settings = StageSettings(max_epochs=chosen.epochs, evaluate_every=1, batch_size=256)
    # Sums over the whole catalogue need the whole tables: draws take their place.
    knowledge = DistillationCallback(GenerationSettings(sample=20), graph=GraphSettings(weight=1.0, sample=20))
    trainer = StreamTrainer(
        plan=StreamPlan(settings, settings, settings, settings, settings),
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[knowledge, StreamCheckpoint(every_seconds=0.0)],
        default_root_dir=chosen.folder,
        **strategy(chosen.processes),
    )
    system = CollaborativeDistillation(Student(BPRMF(4)), [Teacher(BPRMF(8), clusters=3)], ks=(5,))
    stream = ContinualDataModule(SimulatedStream(users=101, items=83, interactions=2000, blocks=2))
    trainer.fit(system, datamodule=stream)
    if trainer.is_global_zero:
        chosen.folder.mkdir(parents=True, exist_ok=True)
        torch.save(system.state_dict(), chosen.folder / "system.pt")
        print(f"The system of {chosen.processes} processes is in {chosen.folder / 'system.pt'}.")


def strategy(processes: int) -> dict[str, Any]:
    """Arguments of the Trainer: all the processes share one copy of the tables."""
    if processes == 1:
        return {"devices": 1}
    sharding = ModelParallelStrategy(
        data_parallel_size=1,
        tensor_parallel_size=processes,
        process_group_backend="gloo",
        save_distributed_checkpoint=False,
    )
    return {"devices": processes, "strategy": sharding}


if __name__ == "__main__":
    main()
