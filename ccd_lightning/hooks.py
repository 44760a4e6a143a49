"""Hooks that the stream adds to Lightning's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch import Callback

from ccd_lightning.modules import CollaborativeDistillation
from ccd_lightning.types import Block, Stage

if TYPE_CHECKING:
    from ccd_lightning.trainer import StreamTrainer


class StreamCallback(Callback):
    """A callback that also hears of blocks and stages; Lightning's own hooks run inside each stage.

    At the start of a stage the model has not yet met the block: it knows its old users and items only.

    Attributes:
        writes: whether it writes into the run's folder, where then no other job may learn.
    """

    writes = False

    def on_stream_start(self, trainer: StreamTrainer, system: CollaborativeDistillation) -> None:
        """The stream begins or goes on; what is done so far is restored."""

    def on_stream_restored(self, trainer: StreamTrainer, system: CollaborativeDistillation) -> None:
        """A checkpoint is read, to be tested or to predict."""

    def on_stream_end(self, trainer: StreamTrainer, system: CollaborativeDistillation) -> None:
        """Every block of the source is learned."""

    def on_block_start(self, trainer: StreamTrainer, system: CollaborativeDistillation, block: Block) -> None:
        """A new block arrives."""

    def on_block_end(self, trainer: StreamTrainer, system: CollaborativeDistillation, block: Block) -> None:
        """All stages of a block are done and measured."""

    def on_stage_start(self, trainer: StreamTrainer, system: CollaborativeDistillation, stage: Stage) -> None:
        """A stage is about to begin."""

    def on_stage_end(self, trainer: StreamTrainer, system: CollaborativeDistillation, stage: Stage) -> None:
        """A stage has ended and was measured."""
