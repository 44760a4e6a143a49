"""A long stream: memory and time of a block depend on its data, not on how many blocks there were."""

from __future__ import annotations

import gc
import statistics
import time
import weakref
from pathlib import Path
from typing import Any

import psutil
import pytest

from ccd_lightning.backbones import BPRMF, LightGCN, MultVAE
from ccd_lightning.callbacks import DistillationCallback, GraphSettings, StreamCheckpoint, StreamReport
from ccd_lightning.data import ContinualDataModule, SimulatedStream
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.modules import CollaborativeDistillation, Student, Teacher
from ccd_lightning.plan import StreamPlan
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import Interactions, StageKind, StageSettings

BLOCKS, WARM_UP = 50, 10


class Watch(StreamCallback):
    """Memory and time of every block; which objectives, knowledge and proxies of earlier stages are still alive."""

    def __init__(self) -> None:
        self.resident: list[int] = []
        self.seconds: list[float] = []
        self.survivors: list[tuple[int, str]] = []
        self.checked = 0
        self._began = 0.0
        self._earlier: list[tuple[int, str, weakref.ref[Any]]] = []

    def on_block_start(self, trainer: Any, system: Any, block: Any) -> None:
        self._began = time.process_time()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        for objective in pl_module.objectives:
            name = type(objective).__name__
            self._remember(trainer, name, objective)
            for attribute, value in vars(objective).items():
                if type(value).__module__.startswith("ccd_lightning") and not isinstance(value, Interactions):
                    self._remember(trainer, f"{name}.{attribute}", value)

    def on_stage_start(self, trainer: Any, system: Any, stage: Any) -> None:
        if stage.kind is StageKind.STUDENT_UPDATE:
            for name, proxy in system.proxies.items():
                self._remember(trainer, f"{name} proxy", proxy)

    def on_block_end(self, trainer: Any, system: Any, block: Any) -> None:
        self.seconds.append(time.process_time() - self._began)
        gc.collect()
        self.resident.append(psutil.Process().memory_info().rss)
        # A block looks back on the one before, whose observed pairs are shared with its objectives.
        due = [entry for entry in self._earlier if entry[0] <= block.index - 2]
        self.survivors += [(born, name) for born, name, reference in due if reference() is not None]
        self.checked += len(due)
        self._earlier = [entry for entry in self._earlier if entry[0] > block.index - 2]

    def _remember(self, trainer: Any, name: str, value: Any) -> None:
        self._earlier.append((trainer.stage.block, name, weakref.ref(value)))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    """A stream of many small blocks."""
    watch = Watch()
    quick = {"learning_rate": 0.01, "batch_size": 512, "max_epochs": 1}
    often = StageSettings(evaluate_every=1, **quick)  # type: ignore[arg-type]
    never = StageSettings(evaluate_every=0, **quick)  # type: ignore[arg-type]
    plan = StreamPlan(often, never, never, often, often)
    callbacks = [
        DistillationCallback(graph=GraphSettings(weight=1.0)),
        StreamCheckpoint(every_seconds=0.0, keep_blocks=False),
        StreamReport(figures=False),
        watch,
    ]
    folder: Path = tmp_path_factory.mktemp("soak")
    trainer = StreamTrainer(
        plan,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=folder,
    )
    teachers = [Teacher(LightGCN(8)), Teacher(BPRMF(8), clusters=3), Teacher(MultVAE(8))]
    system = CollaborativeDistillation(Student(LightGCN(8)), teachers, ks=(20,))
    source = SimulatedStream(users=400, items=300, interactions=24000, blocks=BLOCKS)
    trainer.fit(system, datamodule=ContinualDataModule(source, evaluation_batch=400))
    assert len(list((folder / "checkpoints").iterdir())) == 2
    return watch


@pytest.mark.slow
def test_memory_stays_flat_over_many_blocks(watched: Watch) -> None:
    grown = [resident - watched.resident[WARM_UP] for resident in watched.resident]
    print([round(value / 2**20) for value in watched.resident])
    assert grown[-1] < 0


@pytest.mark.slow
def test_time_of_a_block_does_not_grow_with_the_number_of_blocks(watched: Watch) -> None:
    print([round(value, 2) for value in watched.seconds])
    third = BLOCKS // 3
    early, late = (statistics.median(part) for part in (watched.seconds[1:third], watched.seconds[-third:]))
    assert late < early


@pytest.mark.slow
def test_nothing_of_earlier_stages_stays_alive(watched: Watch) -> None:
    assert watched.checked > 1000
    assert not watched.survivors
