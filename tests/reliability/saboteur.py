"""A callback that sends a signal to its own process at a chosen point of a stream."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import Any

import torch

from ccd_lightning.hooks import StreamCallback

FILE_POINTS = ("write", "fsync", "replace", "unlink")
"""In the middle of a save: half written, before it is flushed, before it gets its name, before old files go."""

HOOK_POINTS = ("stage_start", "train_start", "batch", "validation_end", "epoch_end", "test", "stage_end", "block_end")


class Saboteur(StreamCallback):
    """Sends a signal at the ``count``-th time that a point is passed in a stage.

    Args:
        stage: name of the stage.
        point: one of `HOOK_POINTS` or `FILE_POINTS`.
        count: which time, from 1.
        signal_name: what is sent.
        rank: process that sends it.
    """

    def __init__(self, stage: str, point: str, count: int = 1, signal_name: str = "SIGKILL", rank: int = 0) -> None:
        if point not in HOOK_POINTS + FILE_POINTS:
            raise ValueError(f"`point` is {point}")
        self.stage, self.point, self.count = stage, point, count
        self.signal, self.rank = signal.Signals[signal_name], rank
        self._armed = False

    def _pass(self, point: str, trainer: Any) -> None:
        if self._armed and point == self.point and trainer.global_rank == self.rank:
            self._strike()

    def _strike(self) -> None:
        self.count -= 1
        if self.count == 0:
            os.kill(os.getpid(), self.signal)

    def on_stage_start(self, trainer: Any, system: Any, stage: Any) -> None:
        self._armed = stage.name == self.stage
        if self._armed and self.point in FILE_POINTS and trainer.global_rank == self.rank:
            self._patch_files()
        self._pass("stage_start", trainer)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._pass("train_start", trainer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._pass("batch", trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._pass("validation_end", trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._pass("epoch_end", trainer)

    def on_test_batch_end(self, trainer: Any, pl_module: Any, *others: Any) -> None:
        self._pass("test", trainer)

    def on_stage_end(self, trainer: Any, system: Any, stage: Any) -> None:
        self._pass("stage_end", trainer)

    def on_block_end(self, trainer: Any, system: Any, block: Any) -> None:
        self._pass("block_end", trainer)

    def _patch_files(self) -> None:
        """Strike within the next file operations; the process is not meant to survive, so nothing is put back."""
        owner: Any = {"write": torch, "fsync": os}.get(self.point, Path)
        name = "save" if self.point == "write" else self.point
        real = getattr(owner, name)

        def struck(*arguments: Any, **options: Any) -> Any:
            if self.point == "write" and self.count == 1 and not isinstance(arguments[1], io.BytesIO):
                whole = io.BytesIO()
                real(arguments[0], whole)
                arguments[1].write(whole.getvalue()[: whole.tell() // 2])
                arguments[1].flush()
            self._strike()
            return real(*arguments, **options)

        setattr(owner, name, struck)
