"""Callbacks that live for one stage."""

from __future__ import annotations

import re
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from torch import Tensor
from typing_extensions import override

from ccd_lightning.modules import MONITOR, Recommender
from ccd_lightning.types import Stage, StageSettings

NEVER = 2**31

PLACE = ("block", "stage", "stage_epoch")
"""Columns by which a logger's rows are found again; stages are counted from 0 over the stream."""


def check_callbacks(callbacks: list[Callback], roles: list[str]) -> None:
    """Refuse callbacks whose plan is one for a single model and a single fit, or that watch a model which is not there.

    Args:
        callbacks: the Trainer's.
        roles: of the models that learn, ``student``, ``teacher0``, ...

    Raises:
        MisconfigurationException: naming the callback and what to use in its place.
    """
    for callback in callbacks:
        _check_owner(callback, roles)
        if isinstance(callback, StochasticWeightAveraging | WeightAveraging):
            reason, instead = (
                "averages the weights of one model over one fit",
                "an objective or a backbone of your own that does",
            )
        elif isinstance(callback, GradientAccumulationScheduler):
            reason, instead = (
                "counts epochs over the whole stream",
                "`trainer.accumulate_grad_batches`, or larger batches",
            )
        else:
            continue
        raise MisconfigurationException(
            f"The callback {type(callback).__name__} {reason}, but a stream has a fit for every stage, and models that grow"
            f" between them: leave it out, and use {instead}."
        )


def stage_callbacks(
    stage: Stage, number: int, first_epoch: int, epochs: int, settings: StageSettings, is_judged: bool
) -> list[Callback]:
    """What watches over one stage.

    Args:
        stage: what is learned.
        number: stages that were done before.
        first_epoch: the Trainer's epoch count at the start of the stage.
        epochs: epochs of the stage at most.
        settings: how often it is evaluated, and how long without a better value.
        is_judged: whether evaluations ask anybody; otherwise the stage takes all its epochs and keeps its last state.
    """
    clock = EvaluationClock(first_epoch, epochs, settings.evaluate_every)
    always: list[Callback] = [clock, PlaceInStream(stage.block, number, first_epoch)]
    return [*always, StageStop(settings.patience), BestState(MONITOR)] if is_judged else always


def those_who_can_watch(callbacks: list[Callback], role: str, is_judged: bool) -> list[Callback]:
    """The Trainer's own callbacks for one stage; what watches something that the stage never logs stays away.

    Args:
        callbacks: they live as long as the stream.
        role: of the model that learns, ``student``, ``teacher0``, ...
        is_judged: whether the stage's evaluations ask anybody.
    """
    present = []
    for callback in callbacks:
        monitor = _monitor(callback)
        is_watcher = "valid/" in monitor
        if (is_watcher and not is_judged) or _owner(monitor) not in (None, role):
            continue
        if isinstance(callback, EarlyStopping):
            _begin_anew(callback, after_validation=is_watcher)
        present.append(callback)
    return present


def _monitor(callback: Callback) -> str:
    return callback.monitor or "" if isinstance(callback, EarlyStopping | ModelCheckpoint) else ""


def _owner(monitor: str) -> str | None:
    """Role of the model whose stages alone log a metric; ``None`` if every stage does."""
    owner = monitor.partition("/")[0]
    return owner if re.fullmatch(r"student|teacher\d+", owner) else None


def _check_owner(callback: Callback, roles: list[str]) -> None:
    owner = _owner(_monitor(callback))
    if owner is not None and owner not in roles:
        raise MisconfigurationException(
            f"The callback {type(callback).__name__} watches `{_monitor(callback)}`, but the models are {', '.join(roles)}:"
            f" name one of them, or leave the name out and watch `{_monitor(callback).partition('/')[2]}` of each."
        )


def _begin_anew(stop: EarlyStopping, after_validation: bool) -> None:
    """Let a stage be judged by itself: what one stage has reached is no measure for the next."""
    stop.wait_count = stop.stopped_epoch = 0
    stop.best_score = torch.tensor(torch.inf if stop.mode == "min" else -torch.inf)
    stop.stopping_reason, stop.stopping_reason_message = EarlyStoppingReason.NOT_STOPPED, None
    if after_validation and stop._check_on_train_epoch_end is None:
        # Lightning would take every epoch for one that validates.
        stop._check_on_train_epoch_end = False


class StageStop(EarlyStopping):
    """Ends a stage that becomes no better.

    It has a class of its own because Lightning tells the states of callbacks apart by their classes, and the user may have
    another `EarlyStopping`.

    Args:
        patience: evaluations without a better one.
    """

    def __init__(self, patience: int) -> None:
        super().__init__(MONITOR, patience=patience, mode="max", check_on_train_epoch_end=False)


class EvaluationClock(Callback):
    """Evaluates every n epochs of the stage, and after its last; Lightning's own setting counts epochs of the whole stream.

    Args:
        first_epoch: the Trainer's epoch count at the start of the stage.
        epochs: epochs of the stage.
        every: n; 0 never evaluates.
    """

    def __init__(self, first_epoch: int, epochs: int, every: int) -> None:
        self.first_epoch, self.epochs, self.every = first_epoch, epochs, every

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        done = trainer.current_epoch - self.first_epoch + 1
        due = self.every > 0 and (done % self.every == 0 or done == self.epochs)
        trainer.check_val_every_n_epoch = 1 if due else NEVER


class PlaceInStream(Callback):
    """Writes block, stage and epoch of the stage into every row of the loggers; Lightning's own counts go on over the stages.

    Args:
        block: index of the stage's block.
        number: stages that were done before.
        first_epoch: the Trainer's epoch count at the start of the stage.
    """

    def __init__(self, block: int, number: int, first_epoch: int) -> None:
        self.block, self.number, self.first_epoch = block, number, first_epoch

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(trainer, pl_module)

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(trainer, pl_module)

    def _log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.loggers:
            return
        place = (self.block, self.number, trainer.current_epoch - self.first_epoch)
        pl_module.log_dict(dict(zip(PLACE, map(float, place), strict=True)), rank_zero_only=True)


class BestState(Callback):
    """Keeps the parameters of the best evaluation in memory and returns to them when the stage ends.

    Args:
        monitor: metric to watch, higher is better.
    """

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.best = float("-inf")
        self.values: list[float] = []
        self._state: dict[str, Tensor] = {}

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            # Some batches of what the model knew before are no evaluation of what it learns.
            return
        value = float(trainer.callback_metrics[self.monitor])
        self.values.append(value)
        if value > self.best:
            self.best = value
            # What the stage minimises is no part of the model.
            self._state = {
                name: tensor.detach().clone()
                for name, tensor in pl_module.state_dict().items()
                if not name.startswith("objectives.")
            }

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._state:
            pl_module.load_state_dict(self._state, strict=False)
        if isinstance(pl_module, Recommender):
            pl_module.recalls = self.values

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "state": self._state, "values": self.values}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self._state = state_dict["best"], state_dict["state"]
        self.values = list(state_dict.get("values", []))
