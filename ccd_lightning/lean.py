"""A Trainer whose steps spend little beside their maths: no hook is gone through that nobody listens to."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loops.optimization.automatic import _AutomaticOptimization
from lightning.pytorch.plugins import Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer import call
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

_NOTHING = nullcontext()
_HEARD_BY_CALLBACKS = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
_HEARD_BY_MODULES = (
    *_HEARD_BY_CALLBACKS,
    *("backward", "configure_gradient_clipping", "optimizer_step", "optimizer_zero_grad"),
)


def make_lean(trainer: Trainer) -> None:
    """Spare a Trainer what its steps need not do; a profiler of the user's own stays, and with it all of Lightning's steps.

    Args:
        trainer: one that has not fitted yet.
    """
    trainer.fit_loop.epoch_loop.automatic_optimization = LeanOptimization(trainer)
    if type(trainer.profiler) is PassThroughProfiler:  # type: ignore[attr-defined]
        trainer.profiler = Unprofiled()  # type: ignore[attr-defined]


class Unprofiled(PassThroughProfiler):
    """Notes nothing, without a generator for each of the some fifty hooks of a step, as Lightning's own has."""

    @override
    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]
        return _NOTHING


class LeanOptimization(_AutomaticOptimization):
    """Lightning's automatic optimization, without its closure and hooks where nobody could tell the difference.

    That is one device in full precision, neither clipping nor accumulation nor a profiler, an optimizer that needs no closure, and
    hooks between forward pass and optimizer step that neither model nor callback overrides. Otherwise Lightning's own way is taken.

    Args:
        trainer: whose steps these are.
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer)
        self._lean = False

    @override
    def run(self, optimizer: Optimizer, batch_idx: int, kwargs: OrderedDict[str, Any]) -> dict[str, Any]:
        if batch_idx == 0:
            self._lean = not self._skip_backward and is_lean(self.trainer, optimizer)
        return self._step(optimizer, kwargs) if self._lean else super().run(optimizer, batch_idx, kwargs)

    def _step(self, optimizer: Optimizer, kwargs: OrderedDict[str, Any]) -> dict[str, Any]:
        progress = self.optim_progress.optimizer
        progress.step.increment_ready()
        output = call._call_strategy_hook(self.trainer, "training_step", *kwargs.values())
        loss: Tensor | None = None
        if isinstance(output, Tensor):
            loss, outputs = output, {"loss": output.detach()}
        else:
            # A dictionary, nothing, or a mistake.
            result = self.output_result_cls.from_training_step_output(output)
            loss, outputs = result.closure_loss, {} if result.loss is None else result.asdict()
        progress.zero_grad.increment_ready()
        progress.zero_grad.increment_started()
        # After the forward pass, as Lightning does: a model may look there at the gradients of the step before.
        optimizer.zero_grad()
        progress.zero_grad.increment_completed()
        if loss is not None:
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        progress.step.increment_completed()
        return outputs


def is_lean(trainer: Trainer, optimizer: Optimizer) -> bool:
    """Whether nothing and nobody takes part in a step but model and optimizer.

    Args:
        trainer: one that fits.
        optimizer: its only one.
    """
    model = trainer.lightning_module
    return (
        type(trainer.strategy) is SingleDeviceStrategy
        and type(trainer.precision_plugin) is Precision
        and isinstance(trainer.profiler, Unprofiled)  # type: ignore[attr-defined]
        and trainer.accumulate_grad_batches == 1
        and not trainer.gradient_clip_val
        and _can_do_without_closure(optimizer)
        and not any(is_overridden(hook, model) for hook in _HEARD_BY_MODULES)
        and not any(_hears(callback) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    )


def _can_do_without_closure(optimizer: Optimizer) -> bool:
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is None


def _hears(callback: Callback) -> bool:
    return any(is_overridden(hook, callback) for hook in _HEARD_BY_CALLBACKS)
