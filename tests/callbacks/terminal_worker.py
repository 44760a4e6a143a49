"""Fits a tiny stream three times: in a narrow and a wide terminal, then into a file.

Whoever reads the terminal is told by its title when to look at the screen, and answers with a line once it is resized.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from ccd_lightning import cli
from ccd_lightning.callbacks import StreamProgress

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.helpers import KINDS, short_simulated_fit


class Marked(StreamProgress):
    """Draws the panel now, and tells that it stands there."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        if self._view.epoch:
            self._mark(self._view.stage.name)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_end(trainer, pl_module)
        self._mark(f"{self._view.stage.name} measuring")

    def _mark(self, name: str) -> None:
        live = self._screen._live
        if live is not None:
            with live._lock:
                live.refresh()
                title(name)


def title(name: str) -> None:
    os.write(1, f"\x1b]2;{name}\x07".encode())


def fit(folder: Path) -> None:
    arguments = short_simulated_fit("proxy_replay", folder, blocks=2)
    epochs = [f"--trainer.plan.{kind}.max_epochs=2" for kind in KINDS]
    often = [f"--trainer.plan.{kind}.evaluate_every=1" for kind in ("base", "student_update", "teacher_update")]
    cli.main([*arguments, *epochs, *often, "--report.figures=false"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    cli.StreamProgress = Marked
    for name in ("narrow", "wide"):
        fit(Path("runs") / name)
        title("over")
        sys.stdin.readline()
    with Path("log.txt").open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    fit(Path("runs") / "log")
