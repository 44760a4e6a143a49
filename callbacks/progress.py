"""Where the stream stands, for people who watch it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from rich.console import RenderableType
from typing_extensions import override

from ccd_lightning.checkpoint import has_saved
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.modules import MONITOR, CollaborativeDistillation
from ccd_lightning.record import ROLES
from ccd_lightning.reporting.console import (
    View,
    epoch_line,
    live_panel,
    measured_last,
    measured_line,
    model_name,
    stage_line,
)
from ccd_lightning.reporting.ending import final_table
from ccd_lightning.reporting.quiet import QuietLightning
from ccd_lightning.reporting.remaining import Work, remaining_seconds, work_of_stages
from ccd_lightning.reporting.screen import Screen
from ccd_lightning.reporting.tables import pick_metric
from ccd_lightning.reporting.tested import models_table
from ccd_lightning.reporting.troubles import silences
from ccd_lightning.reporting.units import duration, score, size
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import Block, Stage

BYTES = 4
"""Of a parameter."""

SILENCE = 60.0
"""Seconds without a line after which a log is told of an epoch."""

BEGINNING = 0.02
"""Part of a stage that says little about its pace."""


class StreamProgress(StreamCallback):
    """Tells block, stage, model, epoch, losses, validation Recall@20, elapsed and remaining time.

    In a terminal a panel changes in place; everywhere each stage and each measurement leaves a line, and the end a
    table. Where there is no panel, a long stage also leaves a line about once a minute. Only the first process speaks.
    Losses are means over the steps of an epoch. A test ends in a table as well, in the place of Lightning's, which has a
    row for each metric, model and block.

    Args:
        quiet: hold back what Lightning says at every single stage, but for warnings.
    """

    def __init__(self, quiet: bool = True) -> None:
        self.quiet = quiet
        self._silence = QuietLightning()
        self._screen: Screen | None = None
        self._trainer: StreamTrainer
        self._view = View(0, 0)
        self._work: dict[str, Work] = {}
        self._spent: dict[str, float] = {}
        self._sizes: dict[int, dict[str, int]] = {}
        self._told: dict[str, int] = {}
        self._begun = self._stage_begun = self._training_begun = 0.0
        self._batches_before = 0
        self._tells_test = False

    @override
    def on_stream_start(self, trainer: StreamTrainer, system: CollaborativeDistillation) -> None:
        """Count the work and begin to speak."""
        if trainer.progress_bar_callback is not None:
            trainer.progress_bar_callback.disable()
        self._close()
        if self.quiet:
            self._silence.start()
        if not trainer.is_global_zero:
            return
        blocks = trainer.stream.blocks
        self._work = work_of_stages(trainer, len(system.members()))
        self._spent = {entry["name"]: entry["seconds"] for entry in trainer.record.stages}
        self._view = View(len(blocks), len(self._work), trainer.stages_done)
        self._trainer, self._told, self._begun = trainer, {}, time.monotonic()
        self._screen = Screen(self._render)
        self._screen.open()
        self._screen.tell(
            f"{trainer.stream.source.describe()}: {len(blocks)} blocks, {blocks[-1].num_users} users,"
            f" {blocks[-1].num_items} items, {len(self._work.keys() - self._spent)} of {len(self._work)} stages to go,"
            f" on {trainer.strategy.root_device}, into {trainer.default_root_dir}"
        )

    @override
    def on_stream_end(self, trainer: StreamTrainer, system: CollaborativeDistillation) -> None:
        """Sum up."""
        if self._screen is not None:
            screen, summary = self._screen, trainer.record.summary()
            self._sizes[len(trainer.stream.blocks) - 1] = _sizes_of(system)
            self._close()
            screen.console.print(final_table(summary, pick_metric(summary), self._sizes))
            screen.tell(
                f"{duration(time.monotonic() - self._begun)} elapsed, peak memory {size(summary['peak_bytes'])};"
                f" everything is in {trainer.default_root_dir}{_page_of(trainer)}"
            )
        self._close()

    @override
    def on_block_start(self, trainer: StreamTrainer, system: CollaborativeDistillation, block: Block) -> None:
        """Say it if the block asks nobody."""
        if self._screen is not None:
            for text in silences(block.valid.size, block.test.size):
                self._screen.tell(f"D{block.index} is {text}.")

    @override
    def on_stage_start(self, trainer: StreamTrainer, system: CollaborativeDistillation, stage: Stage) -> None:
        """Show the stage, before its knowledge is prepared."""
        if self._screen is not None:
            self._stage_begun = time.monotonic()
            settings, view = trainer.plan.settings(stage), self._view
            self._view = View(view.num_blocks, view.num_stages, trainer.stages_done, stage, latest=view.latest)
            self._view.max_epochs, self._view.validates = trainer.epochs_of(settings), settings.evaluate_every > 0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What precedes is no training."""
        if self._screen is not None:
            self._training_begun = time.monotonic()
            self._view.phase = "training"

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the epoch; the module has summed up the one before."""
        if self._screen is not None:
            self._batches_before = _batches_done(trainer)
            self._view.epoch = trainer.current_epoch - int(getattr(pl_module, "first_epoch", 0))
            self._read_losses(trainer)
            if self._screen.silence() > SILENCE:
                self._look()
                self._screen.tell(epoch_line(self._view))

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the validation metric."""
        if self._screen is not None and trainer.state.fn == "fit" and MONITOR in trainer.callback_metrics:
            self._view.recalls.append(float(trainer.callback_metrics[MONITOR]))
            if self._view.stage is not None:
                name = model_name(self._view.stage)
                self._view.latest = (
                    f"valid recall@20 {score(self._view.recalls[-1])} ({name} on D{self._view.stage.block})"
                )

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The stage's last losses; what follows is measuring."""
        if self._screen is not None:
            self._view.epoch = trainer.current_epoch - int(getattr(pl_module, "first_epoch", 0))
            self._read_losses(trainer)
            self._view.phase = "measuring"

    @override
    def on_stage_end(self, trainer: StreamTrainer, system: CollaborativeDistillation, stage: Stage) -> None:
        """Leave a line about the stage, and one for each role that was measured."""
        if self._screen is not None:
            last = trainer.record.stages[-1]
            self._spent[stage.name] = time.monotonic() - self._stage_begun
            self._look()
            times = not self._screen.has_panel
            self._screen.tell(stage_line(self._view, last["epochs"], last["seconds"], times))
            self._tell_measured(self._screen, trainer, stage.block)

    @override
    def on_block_end(self, trainer: StreamTrainer, system: CollaborativeDistillation, block: Block) -> None:
        """Roles without a stage of their own in the block are measured by now."""
        if self._screen is not None:
            self._tell_measured(self._screen, trainer, block.index)
            self._sizes[block.index] = _sizes_of(system)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the place of Lightning's table, where one was asked for: the measurements of a stream ask for none."""
        is_stream = isinstance(trainer, StreamTrainer) and isinstance(pl_module, CollaborativeDistillation)
        self._tells_test = trainer.test_loop.verbose and is_stream
        if self._tells_test:
            trainer.test_loop.verbose = False

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show what a test has found."""
        if self._tells_test:
            assert isinstance(trainer, StreamTrainer) and isinstance(pl_module, CollaborativeDistillation)
            # On every process, since the metrics are joined when they are computed.
            table = models_table(pl_module.test_results(), trainer.record, pl_module.ks)
            if trainer.is_global_zero:
                Screen(self._render).console.print(table)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was; whoever pressed Ctrl-C reads how to go on."""
        speaks = self._screen is not None
        self._close()
        if speaks and isinstance(exception, KeyboardInterrupt):
            run = trainer.default_root_dir
            saved = has_saved(Path(run))
            hint = (
                f"what was saved is whole in {run}; go on with `--ckpt_path last`."
                if saved
                else "nothing was saved yet."
            )
            print(f"interrupted: {hint}", file=sys.stderr)

    @override
    def state_dict(self) -> dict[str, Any]:
        """Bytes of the models after each block, for the table that ends a resumed run."""
        return {"sizes": self._sizes}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self._sizes = dict(state_dict.get("sizes", {}))

    def _close(self) -> None:
        if self._screen is not None:
            self._screen.close()
            self._screen = None
        self._silence.stop()

    def _tell_measured(self, screen: Screen, trainer: StreamTrainer, block: int) -> None:
        summary = trainer.record.summary()
        for role in ROLES:
            if trainer.record.has(role, block) and self._told.get(role) != block:
                self._told[role] = block
                screen.tell(measured_line(summary, role, block, pick_metric(summary)))
                self._view.latest = measured_last(summary, role, block, pick_metric(summary))

    def _read_losses(self, trainer: Trainer) -> None:
        """Sums over the last epoch, divided by its steps."""
        steps = max(int(trainer.num_training_batches), 1)
        losses = {
            name.partition("/loss/")[2]: float(value) / steps
            for name, value in trainer.callback_metrics.items()
            if "/loss/" in name
        }
        self._view.losses = losses if self._view.epoch else {}

    def _render(self, width: int) -> RenderableType:
        self._look()
        return live_panel(self._view, width)

    def _look(self) -> None:
        """Bring the view up to date."""
        view, trainer, now = self._view, self._trainer, time.monotonic()
        view.elapsed = now - self._begun
        batches = trainer.num_training_batches
        part = (_batches_done(trainer) - self._batches_before) / batches if batches else 0.0
        view.share = min((view.epoch + part) / max(view.max_epochs, 1), 1.0) if view.phase == "training" else 0.0
        view.remaining = self._remaining(view, now - self._training_begun)

    def _remaining(self, view: View, seconds: float) -> float | None:
        """At the pace of the stages done and of the present one, from the moment its training began."""
        done = [self._work[name]._replace(seconds=spent) for name, spent in self._spent.items() if name in self._work]
        present_name = view.stage.name if view.stage is not None else None
        ahead = [work for name, work in self._work.items() if name == present_name or name not in self._spent]
        if ahead and view.stage is not None and view.phase != "preparing":
            present = ahead[0]
            share = view.share if view.phase == "training" else 1.0
            if share > BEGINNING:
                done.append(present._replace(amount=present.amount * share, seconds=seconds))
            ahead[0] = present._replace(amount=present.amount * (1 - share))
        return remaining_seconds(done, ahead)


def _batches_done(trainer: Trainer) -> int:
    """Over all epochs: Lightning's count of the present one still holds the last one's when an epoch starts."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.completed


def _sizes_of(system: CollaborativeDistillation) -> dict[str, int]:
    return {role: system.num_parameters(role) * BYTES for role in ("teacher", "student")}


def _page_of(trainer: StreamTrainer) -> str:
    return ", to look at in report.html" if (Path(trainer.default_root_dir) / "report.html").is_file() else ""
