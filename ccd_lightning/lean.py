"""A Trainer whose steps spend little beside their maths: no hook is gone through that nobody listens to."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher, _DataLoaderIterDataFetcher
from lightning.pytorch.loops.optimization.automatic import ClosureResult
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins import Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer import call
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

_NOTHING = nullcontext()
_HEARD_BY_CALLBACKS = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
_HEARD_BY_MODULES = (
    *_HEARD_BY_CALLBACKS,
    *("on_train_batch_start", "backward", "configure_gradient_clipping", "optimizer_step", "optimizer_zero_grad"),
)
_AROUND_A_STEP = ("on_train_batch_start", "on_train_batch_end")


def make_lean(trainer: Trainer) -> None:
    """Spare a Trainer what its steps need not do; a profiler of the user's own stays, and with it all of Lightning's steps.

    Args:
        trainer: one that has not fitted yet.
    """
    plain = trainer.fit_loop.epoch_loop
    trainer.fit_loop.epoch_loop = LeanEpochLoop(trainer, plain.min_steps, plain.max_steps)
    if type(trainer.profiler) is PassThroughProfiler:  # type: ignore[attr-defined]
        trainer.profiler = Unprofiled()  # type: ignore[attr-defined]


class Unprofiled(PassThroughProfiler):
    """Notes nothing, without a generator for each of the some fifty hooks of a step, as Lightning's own has."""

    @override
    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]
        return _NOTHING


class LeanEpochLoop(_TrainingEpochLoop):
    """Lightning's loop over an epoch's batches, without closures and hooks where nobody could tell the difference.

    That is one device in full precision, neither clipping nor accumulation nor a profiler, one optimizer that needs no closure, and
    hooks between batch and optimizer step that neither model nor callback overrides. Otherwise Lightning's own way is taken.

    Args:
        trainer: whose epochs these are.
        min_steps: steps of a fit at least.
        max_steps: at most; -1 for any number.
    """

    def __init__(self, trainer: Trainer, min_steps: int | None = None, max_steps: int = -1) -> None:
        super().__init__(trainer, min_steps, max_steps)
        self._lean = False
        self._takes_index = True
        self._watched: set[str] = set()
        self._model_watches_end = False
        self._batch_hooks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    @override
    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        super().on_run_start(data_fetcher)
        trainer = self.trainer
        fetches_itself = isinstance(data_fetcher, _DataLoaderIterDataFetcher)
        self._lean = not fetches_itself and not trainer.fit_loop._skip_backward and is_lean(trainer)
        step = trainer.lightning_module.training_step
        self._takes_index = is_param_in_hook_signature(step, "batch_idx", min_args=2)
        self._watched = {hook for hook in _AROUND_A_STEP if any(is_overridden(hook, one) for one in trainer.callbacks)}
        self._model_watches_end = is_overridden("on_train_batch_end", trainer.lightning_module)
        self._batch_hooks = list(_batch_hooks(trainer)) if self._lean else []

    @override
    def advance(self, data_fetcher: _DataFetcher) -> None:
        if self.restarting or not self._lean:
            super().advance(data_fetcher)
            return
        trainer, progress = self.trainer, self.batch_progress
        self.val_loop.restarting = False
        batch, _, _ = next(data_fetcher)
        index = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        for hook, beside in self._batch_hooks:
            batch = hook(batch, *beside)
        progress.increment_ready()
        trainer._logger_connector.on_batch_start(batch)
        outputs: dict[str, Any] | None = None
        if batch is None:
            self._warning_cache.warn("train_dataloader yielded None. If this was on purpose, ignore this warning...")
        else:
            self._tell_callbacks("on_train_batch_start", batch, index)
            progress.increment_started()
            outputs = self._step(trainer.optimizers[0], (batch, index) if self._takes_index else (batch,))
        progress.increment_processed()
        if trainer.lr_scheduler_configs:
            self.update_lr_schedulers("step", update_plateau_schedulers=False)
            if self._num_ready_batches_reached():
                self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        self._tell_callbacks("on_train_batch_end", outputs, batch, index)
        if self._model_watches_end:
            call._call_lightning_module_hook(trainer, "on_train_batch_end", outputs, batch, index)
        self._end_logging_of_batch()
        progress.increment_completed()
        trainer._logger_connector.update_train_step_metrics()

    @override
    def _should_check_val_epoch(self) -> bool:
        # Asked after every step, mostly in epochs that are not validated; whether there is anything to validate on takes longer.
        every = self.trainer.check_val_every_n_epoch
        is_due: bool = every is None or (self.trainer.current_epoch + 1) % every == 0
        return is_due and self.trainer.enable_validation

    def _tell_callbacks(self, hook: str, *arguments: Any) -> None:
        if hook in self._watched:
            call._call_callback_hooks(self.trainer, hook, *arguments)

    def _end_logging_of_batch(self) -> None:
        results = self.trainer._results
        if results is None or any(result.meta.on_step for result in results.values()):
            self.trainer._logger_connector.on_batch_end()
        else:
            # What was logged for whole epochs alone is not looked through after each step.
            results.batch = results.batch_size = None

    def _step(self, optimizer: Optimizer, arguments: tuple[Any, ...]) -> dict[str, Any]:
        progress = self.automatic_optimization.optim_progress.optimizer
        progress.step.increment_ready()
        output = call._call_strategy_hook(self.trainer, "training_step", *arguments)
        loss: Tensor | None = None
        if isinstance(output, Tensor):
            loss, outputs = output, {"loss": output.detach()}
        else:
            # A dictionary, nothing, or a mistake.
            result = ClosureResult.from_training_step_output(output)
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


def is_lean(trainer: Trainer) -> bool:
    """Whether nothing and nobody takes part in a step but model and optimizer.

    Args:
        trainer: one that fits.
    """
    model = trainer.lightning_module
    return (
        type(trainer.strategy) is SingleDeviceStrategy
        and type(trainer.precision_plugin) is Precision
        and isinstance(trainer.profiler, Unprofiled)  # type: ignore[attr-defined]
        and trainer.accumulate_grad_batches == 1
        and not trainer.gradient_clip_val
        and model.automatic_optimization
        and _can_do_without_closure(trainer.optimizers[0])
        and not any(is_overridden(hook, model) for hook in _HEARD_BY_MODULES)
        and not any(_hears(callback) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    )


def _batch_hooks(trainer: Trainer) -> Iterator[tuple[Callable[..., Any], tuple[Any, ...]]]:
    """What a batch goes through on its way to the device, and with what beside it, without what nobody overrides."""
    device, selector = trainer.strategy.root_device, trainer._data_connector._datahook_selector
    assert selector is not None, "Lightning chooses between model and data module before it fits"
    beside = {
        "on_before_batch_transfer": (0,),
        "transfer_batch_to_device": (device, 0),
        "on_after_batch_transfer": (0,),
    }
    for name, arguments in beside.items():
        owner = selector.get_instance(name)
        if name == "transfer_batch_to_device" or is_overridden(name, owner):
            yield getattr(owner, name), arguments


def _can_do_without_closure(optimizer: Optimizer) -> bool:
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is None


def _hears(callback: Callback) -> bool:
    return any(is_overridden(hook, callback) for hook in _HEARD_BY_CALLBACKS)
