"""Where the stream stands, for people who watch it."""

from __future__ import annotations

import time

from lightning.pytorch import LightningModule, Trainer
from rich.console import RenderableType
from typing_extensions import override

from ccd_lightning.hooks import StreamCallback
from ccd_lightning.modules import MONITOR, CollaborativeDistillation
from ccd_lightning.record import ROLES
from ccd_lightning.reporting.console import View, final_table, live_panel, measured_line, stage_line
from ccd_lightning.reporting.remaining import Work, remaining_seconds
from ccd_lightning.reporting.screen import Screen
from ccd_lightning.reporting.tables import pick_metric
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import Block, Stage


class StreamProgress(StreamCallback):
    """Tells block, stage, model, epoch, losses, validation Recall@20, elapsed and remaining time.

    In a terminal a panel changes in place; everywhere each stage and each measurement leaves a line, and the end a
    table. Only the first process speaks. Losses are means over the steps of an epoch.

    Args:
        quiet: hold back what Lightning says at every single stage, but for warnings.
    """

    def __init__(self, quiet: bool = True) -> None:
        self.quiet = quiet
        self._screen: Screen | None = None
        self._trainer: StreamTrainer
        self._view = View(0, 0)
        self._work: dict[str, Work] = {}
        self._told: dict[str, int] = {}
        self._begun = self._stage_begun = 0.0

    @override
    def on_stream_start(self, trainer: StreamTrainer, system: CollaborativeDistillation) -> None:
        """Count the work and begin to speak."""
        if trainer.progress_bar_callback is not None:
            trainer.progress_bar_callback.disable()
        if not trainer.is_global_zero:
            return
        self._close()
        blocks = trainer.stream.blocks
        self._work = _work_of_stages(trainer, len(system.members()))
        self._view = View(len(blocks), len(self._work), trainer.stages_done)
        self._trainer, self._told, self._begun = trainer, {}, time.monotonic()
        self._screen = Screen(self._render, self.quiet)
        self._screen.open()
        self._screen.tell(
            f"{trainer.stream.source.describe()}: {len(blocks)} blocks, {blocks[-1].num_users} users,"
            f" {blocks[-1].num_items} items, {len(self._work) - trainer.stages_done} of {len(self._work)} stages to go,"
            f" on {trainer.strategy.root_device}, into {trainer.default_root_dir}"
        )

    @override
    def on_stream_end(self, trainer: StreamTrainer, system: CollaborativeDistillation) -> None:
        """Sum up."""
        if self._screen is not None:
            console = self._screen.console
            self._close()
            summary = trainer.record.summary()
            names = {"teacher system": "teacher", "student": "student"}
            costs = [(name, system.num_parameters(role) * 4) for name, role in names.items()]
            console.print(final_table(summary, pick_metric(summary), costs))

    @override
    def on_stage_start(self, trainer: StreamTrainer, system: CollaborativeDistillation, stage: Stage) -> None:
        """Show the stage, before its knowledge is prepared."""
        if self._screen is not None:
            self._stage_begun = time.monotonic()
            epochs = trainer.epochs_of(trainer.plan.settings(stage))
            view = self._view
            self._view = View(view.num_blocks, view.num_stages, trainer.stages_done, stage, max_epochs=epochs)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the epoch; the module has summed up the one before."""
        if self._screen is not None:
            self._view.epoch = trainer.current_epoch - int(getattr(pl_module, "first_epoch", 0))
            self._read_losses(trainer)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the validation metric."""
        if self._screen is not None and trainer.state.fn == "fit" and MONITOR in trainer.callback_metrics:
            self._view.recalls.append(float(trainer.callback_metrics[MONITOR]))

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The stage's last losses; what follows is measuring."""
        if self._screen is not None:
            self._view.epoch = trainer.current_epoch - int(getattr(pl_module, "first_epoch", 0))
            self._read_losses(trainer)
            self._view.measuring = True

    @override
    def on_stage_end(self, trainer: StreamTrainer, system: CollaborativeDistillation, stage: Stage) -> None:
        """Leave a line about the stage, and one for each role that was measured."""
        if self._screen is not None:
            last = trainer.record.stages[-1]
            self._screen.tell(stage_line(self._view, last["epochs"], last["seconds"]))
            self._tell_measured(self._screen, trainer, stage.block)

    @override
    def on_block_end(self, trainer: StreamTrainer, system: CollaborativeDistillation, block: Block) -> None:
        """Roles without a stage of their own in the block are measured by now."""
        if self._screen is not None:
            self._tell_measured(self._screen, trainer, block.index)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._close()

    def _close(self) -> None:
        if self._screen is not None:
            self._screen.close()
            self._screen = None

    def _tell_measured(self, screen: Screen, trainer: StreamTrainer, block: int) -> None:
        summary = trainer.record.summary()
        for role in ROLES:
            if trainer.record.has(role, block) and self._told.get(role) != block:
                self._told[role] = block
                screen.tell(measured_line(summary, role, block, pick_metric(summary)))

    def _read_losses(self, trainer: Trainer) -> None:
        """Sums over the last epoch, divided by its steps."""
        steps = max(int(trainer.num_training_batches), 1)
        losses = {
            name.partition("/loss/")[2]: float(value) / steps
            for name, value in trainer.callback_metrics.items()
            if "/loss/" in name
        }
        self._view.losses = losses if self._view.epoch else {}

    def _render(self) -> RenderableType:
        view, trainer, now = self._view, self._trainer, time.monotonic()
        view.elapsed = now - self._begun
        batches = trainer.num_training_batches
        part = trainer.fit_loop.epoch_loop.batch_progress.current.completed / batches if batches else 0.0
        view.share = 1.0 if view.measuring else min((view.epoch + part) / max(view.max_epochs, 1), 1.0)
        view.remaining = self._remaining(view, now - self._stage_begun)
        return live_panel(view)

    def _remaining(self, view: View, seconds: float) -> float | None:
        stages = list(self._trainer.record.stages)
        done = [
            Work(*self._work[entry["name"]][:2], entry["seconds"]) for entry in stages if entry["name"] in self._work
        ]
        ahead = list(self._work.values())[len(stages) :]
        if ahead and view.stage is not None and not view.measuring:
            kind, amount, _ = ahead[0]
            done.append(Work(kind, amount * view.share, seconds if view.share else 0.0))
            ahead[0] = Work(kind, amount * (1 - view.share))
        return remaining_seconds(done, ahead)


def _work_of_stages(trainer: StreamTrainer, num_teachers: int) -> dict[str, Work]:
    """The stages of the whole stream by name: rows times epochs at most."""
    plan = trainer.plan
    return {
        stage.name: Work(stage.kind.value, float(block.train.size * trainer.epochs_of(plan.settings(stage))))
        for block in trainer.stream.blocks
        for stage in plan.stages(block.index, num_teachers)
    }
