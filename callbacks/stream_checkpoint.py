"""Saving of the stream, so that it can go on at any time."""

from __future__ import annotations

from pathlib import Path

from typing_extensions import override

from ccd_lightning.checkpoint import FOLDER, SUFFIX, checkpoints_in, write_checkpoint
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.modules import CollaborativeDistillation
from ccd_lightning.resume import stream_state
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import Stage


class StreamCheckpoint(StreamCallback):
    """Writes a stream checkpoint after every stage; each file is whole or absent, and the newest ones are kept.

    Args:
        keep_last: checkpoints kept beside the last one of every block; must be at least 1.
        keep_blocks: keep the last checkpoint of every block for good.
    """

    def __init__(self, keep_last: int = 2, keep_blocks: bool = True) -> None:
        if keep_last < 1:
            raise ValueError(f"`keep_last` is {keep_last}, but the newest checkpoint must stay: pass 1 or more.")
        self.keep_last, self.keep_blocks = keep_last, keep_blocks

    @override
    def on_stage_end(self, trainer: StreamTrainer, system: CollaborativeDistillation, stage: Stage) -> None:
        """Save, then let go of what is not to be kept."""
        if trainer.is_global_zero:
            run = Path(trainer.default_root_dir)
            name = f"{trainer.stages_done:05d}-{stage.name}{SUFFIX}"
            write_checkpoint(run / FOLDER / name, stream_state(trainer, system, trainer.stream))
            self._prune(run)
        trainer.strategy.barrier("stream checkpoint")

    def _prune(self, run: Path) -> None:
        found = checkpoints_in(run)
        last_of_block = {path.name.split("-")[1]: path for path in found}
        kept = set(found[-self.keep_last :]) | (set(last_of_block.values()) if self.keep_blocks else set())
        for path in found:
            if path not in kept:
                path.unlink()
