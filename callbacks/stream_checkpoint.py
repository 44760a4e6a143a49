"""Saving of the stream, so that it can go on at any time."""

from __future__ import annotations

import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from signal import Signals
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from typing_extensions import override

from ccd_lightning.checkpoint import (
    FOLDER,
    SUFFIX,
    checkpoints_in,
    serial_of,
    unfinished_in,
    unfinished_path,
    whole_file,
    write_checkpoint,
)
from ccd_lightning.checks import require_number
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.modules import CollaborativeDistillation, Recommender
from ccd_lightning.resume import check_savable, stream_state
from ccd_lightning.signals import requeue_job
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import Stage
from ccd_lightning.unfinished import note_stage


class StreamCheckpoint(StreamCallback):
    """Writes a stream checkpoint after every stage, and the state within a stage from time to time.

    Each file is whole or absent. On SIGTERM the present epoch is finished and saved, then the process exits with code 143
    (128 and the signal's number, as shells count). In a SLURM job the same happens on the signal that announces its end
    (SIGUSR1 unless told otherwise), and the job is put back into the queue, where it goes on by the same command.

    Args:
        keep_last: checkpoints kept beside the last one of every block; must be at least 1.
        keep_blocks: keep the last checkpoint of every block for good.
        every_seconds: least time between two saves within a stage, at the ends of epochs; this much work and an epoch are lost
            at most.
    """

    writes = True

    def __init__(self, keep_last: int = 2, keep_blocks: bool = True, every_seconds: float = 60.0) -> None:
        if keep_last < 1:
            raise ValueError(f"`keep_last` is {keep_last}, but the newest checkpoint must stay: pass 1 or more.")
        require_number("every_seconds", every_seconds, least=0)
        self.keep_last, self.keep_blocks, self.every_seconds = keep_last, keep_blocks, every_seconds
        self._saved_at = time.monotonic()

    @override
    def on_stream_start(self, trainer: StreamTrainer, system: CollaborativeDistillation) -> None:
        """Refuse what could not be read again before anything is learned, then begin to listen to signals."""
        check_savable(trainer, system)
        trainer.signals.watch()

    @override
    def on_stream_end(self, trainer: StreamTrainer, system: CollaborativeDistillation) -> None:
        """Everything is saved."""
        trainer.signals.release()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Whoever catches the exception gets the signals back."""
        if isinstance(trainer, StreamTrainer):
            trainer.signals.release()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Whoever was asked to stop while a stage was prepared need not begin it."""
        if isinstance(trainer, StreamTrainer) and trainer.stage is not None:
            self._stop_if_asked(trainer)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save within the stage if it is time, or if the process was asked to stop."""
        if not isinstance(trainer, StreamTrainer) or not isinstance(pl_module, Recommender) or trainer.stage is None:
            return
        if trainer.should_stop or trainer.current_epoch + 1 >= (trainer.max_epochs or 0):
            # The stage's own checkpoint follows.
            return
        asked = trainer.signals.agreed()
        late = time.monotonic() - self._saved_at >= self.every_seconds
        if asked or trainer.strategy.reduce_boolean_decision(late, all=False):
            pl_module.check_finite()
            self._save_unfinished(trainer, trainer.stage)
        if asked:
            self._stop(trainer, asked)

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note what a state within a stage belongs to."""
        if isinstance(trainer, StreamTrainer) and trainer.stage is not None and isinstance(pl_module, Recommender):
            note_stage(trainer, pl_module, trainer.stage, checkpoint)

    @override
    def on_stage_end(self, trainer: StreamTrainer, system: CollaborativeDistillation, stage: Stage) -> None:
        """Save, then let go of what is not to be kept."""
        if trainer.is_global_zero:
            run = Path(trainer.default_root_dir)
            name = f"{trainer.stages_done:05d}-{stage.name}{SUFFIX}"
            write_checkpoint(run / FOLDER / name, stream_state(trainer, system, trainer.stream))
            self._prune(run, trainer.stages_done)
        self._saved_at = time.monotonic()
        trainer.strategy.barrier("stream checkpoint")
        self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: StreamTrainer) -> None:
        asked = trainer.signals.agreed()
        if asked:
            self._stop(trainer, asked)

    def _stop(self, trainer: StreamTrainer, asked: Signals) -> None:
        if trainer.is_global_zero:
            run = trainer.default_root_dir
            print(f"{asked.name}: all that is done is saved in {run}; go on with `--ckpt_path last`.", file=sys.stderr)
            if asked == trainer.signals.requeue_signal:
                requeue_job()
        # Lightning kills the main process if one that it started ends with anything but 0.
        raise SIGTERMException(0 if trainer.local_rank else 128 + asked)

    def _save_unfinished(self, trainer: StreamTrainer, stage: Stage) -> None:
        path = unfinished_path(Path(trainer.default_root_dir), trainer.stages_done + 1, stage)
        # Every process takes part in the saving, the first one alone writes.
        writes = trainer.is_global_zero
        with whole_file(path) if writes else nullcontext(path) as draft:
            trainer.save_checkpoint(draft, weights_only=False)
            if writes:
                with draft.open("rb+") as file:
                    os.fsync(file.fileno())
        self._saved_at = time.monotonic()

    def _prune(self, run: Path, stages_done: int) -> None:
        # Those of later stages belong to a stream that was taken back to an older checkpoint.
        found = [path for path in checkpoints_in(run) if serial_of(path) <= stages_done]
        last_of_block = {path.name.split("-")[1]: path for path in found}
        kept = set(found[-self.keep_last :]) | (set(last_of_block.values()) if self.keep_blocks else set())
        for path in [*checkpoints_in(run), *unfinished_in(run)]:
            if path not in kept:
                path.unlink()
