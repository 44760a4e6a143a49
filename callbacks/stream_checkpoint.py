"""Saving of the stream, so that it can go on at any time."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning_utilities.core.rank_zero import rank_zero_info
from typing_extensions import override

from ccd_lightning.checkpoint import FOLDER, SUFFIX, UNFINISHED, checkpoints_in, unfinished_path, write_checkpoint
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.modules import CollaborativeDistillation, Recommender
from ccd_lightning.resume import stream_state
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import Stage


class StreamCheckpoint(StreamCallback):
    """Writes a stream checkpoint after every stage, and the state within a stage from time to time.

    Each file is whole or absent. On SIGTERM the present epoch is finished and saved, then the process exits.

    Args:
        keep_last: checkpoints kept beside the last one of every block; must be at least 1.
        keep_blocks: keep the last checkpoint of every block for good.
        every_seconds: least time between two saves within a stage, at the ends of epochs; this much work is lost at most.
    """

    def __init__(self, keep_last: int = 2, keep_blocks: bool = True, every_seconds: float = 60.0) -> None:
        if keep_last < 1:
            raise ValueError(f"`keep_last` is {keep_last}, but the newest checkpoint must stay: pass 1 or more.")
        if every_seconds < 0:
            raise ValueError(f"`every_seconds` is {every_seconds}, but time does not run backwards: pass 0 or more.")
        self.keep_last, self.keep_blocks, self.every_seconds = keep_last, keep_blocks, every_seconds
        self._saved_at = time.monotonic()
        self._asked_to_stop = False

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning stops within an epoch on SIGTERM; here the epoch is finished, so that the run can go on bit for bit."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._ask_to_stop)

    def _ask_to_stop(self, signum: int, frame: FrameType | None) -> None:
        self._asked_to_stop = True

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save within the stage if it is time, or if the process was asked to stop."""
        if not isinstance(trainer, StreamTrainer) or not isinstance(pl_module, Recommender) or trainer.stage is None:
            return
        stop = trainer.strategy.reduce_boolean_decision(self._asked_to_stop, all=False)
        late = time.monotonic() - self._saved_at >= self.every_seconds
        due = stop or trainer.strategy.reduce_boolean_decision(late, all=False)
        # The last epoch needs no saving: the stage's own checkpoint follows.
        if due and not trainer.should_stop and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            pl_module.check_finite()
            self._save_unfinished(trainer, trainer.stage)
        if stop:
            rank_zero_info("Asked to stop: what is done is saved; go on with `--ckpt_path last`.")
            raise SIGTERMException

    @override
    def on_stage_end(self, trainer: StreamTrainer, system: CollaborativeDistillation, stage: Stage) -> None:
        """Save, then let go of what is not to be kept."""
        if trainer.is_global_zero:
            run = Path(trainer.default_root_dir)
            name = f"{trainer.stages_done:05d}-{stage.name}{SUFFIX}"
            write_checkpoint(run / FOLDER / name, stream_state(trainer, system, trainer.stream))
            self._prune(run)
        self._saved_at = time.monotonic()
        trainer.strategy.barrier("stream checkpoint")

    def _save_unfinished(self, trainer: StreamTrainer, stage: Stage) -> None:
        path = unfinished_path(Path(trainer.default_root_dir), trainer.stages_done + 1, stage)
        draft = path.with_suffix(".tmp")
        trainer.save_checkpoint(draft)
        if trainer.is_global_zero:
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
            draft.replace(path)
        self._saved_at = time.monotonic()

    def _prune(self, run: Path) -> None:
        found = checkpoints_in(run)
        last_of_block = {path.name.split("-")[1]: path for path in found}
        kept = set(found[-self.keep_last :]) | (set(last_of_block.values()) if self.keep_blocks else set())
        for path in [*found, *(run / FOLDER).glob(f"*{UNFINISHED}")]:
            if path not in kept:
                path.unlink()
