"""Lean steps learn what Lightning's own steps learn, and give way to them wherever somebody takes part in a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.profilers import SimpleProfiler
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from ccd_lightning import lean
from ccd_lightning.lean import LeanOptimization, Unprofiled
from ccd_lightning.trainer import StreamTrainer

STEPS = 6
HEARD_BY_CALLBACKS = ["on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step"]

HEARD_BY_MODULES = [
    *HEARD_BY_CALLBACKS,
    "backward",
    "configure_gradient_clipping",
    "optimizer_step",
    "optimizer_zero_grad",
]


class Regression(LightningModule):
    """Least squares with a step that may return whatever Lightning allows."""

    def __init__(self, returned: str = "tensor", optimizer: type[Optimizer] = torch.optim.Adam) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 1)
        torch.nn.init.constant_(self.linear.weight, 0.5)
        torch.nn.init.zeros_(self.linear.bias)
        self.returned, self.optimizer = returned, optimizer
        self.seen: list[Any] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        inputs, targets = batch
        loss = torch.nn.functional.mse_loss(self.linear(inputs), targets)
        before = self.linear.weight.grad
        self.seen.append(None if before is None else before.tolist())
        self.log("loss", loss)
        if self.returned == "sometimes none":
            return None if batch_idx % 2 else loss
        return {"loss": loss, "further": batch_idx} if self.returned == "dict" else loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(outputs)

    def configure_optimizers(self) -> Optimizer:
        return self.optimizer(self.parameters(), lr=0.1)  # type: ignore[call-arg]


class Ear(Callback):
    """Counts how often one hook is called."""

    def __init__(self, hook: str) -> None:
        self.calls = 0
        setattr(self, hook, self._heard)

    def _heard(self, *arguments: Any) -> None:
        self.calls += 1


def batches() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(8 * STEPS, 3, generator=generator)
    return DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), batch_size=8)


def fitted(model: LightningModule, **options: Any) -> StreamTrainer:
    trainer = StreamTrainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, max_epochs=2, **{"callbacks": None, **options}
    )
    trainer.fit(model, batches())
    return trainer


def was_lean(trainer: StreamTrainer) -> bool:
    steps = trainer.fit_loop.epoch_loop.automatic_optimization
    assert isinstance(steps, LeanOptimization)
    return steps._lean


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*returned `None`")
class TestSteps:
    @pytest.mark.parametrize("returned", ["tensor", "dict", "sometimes none"])
    def test_learn_and_count_as_lightnings_own(self, returned: str, monkeypatch: pytest.MonkeyPatch) -> None:
        models = [Regression(returned), Regression(returned)]
        trainers = [fitted(models[0])]
        monkeypatch.setattr(lean, "is_lean", lambda trainer, optimizer: False)
        trainers.append(fitted(models[1]))
        assert [was_lean(trainer) for trainer in trainers] == [True, False]
        assert torch.equal(models[0].linear.weight, models[1].linear.weight)
        assert models[0].seen == models[1].seen
        assert trainers[0].global_step == trainers[1].global_step == 2 * STEPS
        assert trainers[0].fit_loop.state_dict() == trainers[1].fit_loop.state_dict()
        assert trainers[0].callback_metrics == trainers[1].callback_metrics

    @pytest.mark.parametrize("hook", HEARD_BY_CALLBACKS)
    def test_every_hook_of_a_callback_is_heard(self, hook: str) -> None:
        ear = Ear(hook)
        assert not was_lean(fitted(Regression(), callbacks=[ear]))
        assert ear.calls == 2 * STEPS

    @pytest.mark.parametrize("hook", HEARD_BY_MODULES)
    def test_every_hook_of_a_model_is_heard(self, hook: str) -> None:
        calls = []
        plain = getattr(LightningModule, hook)

        def heard(self: LightningModule, *arguments: Any, **named: Any) -> Any:
            calls.append(hook)
            return plain(self, *arguments, **named)

        model = type("Listening", (Regression,), {hook: heard})()
        assert not was_lean(fitted(model))
        assert len(calls) == 2 * STEPS

    @pytest.mark.parametrize(
        "options",
        [
            {"gradient_clip_val": 0.01},
            {"accumulate_grad_batches": 2},
            {"profiler": "simple"},
            {"precision": "bf16-mixed"},
        ],
        ids=lambda options: next(iter(options)),
    )
    def test_whoever_takes_part_keeps_lightnings_steps(self, options: dict[str, Any]) -> None:
        plain, other = Regression(), Regression()
        fitted(plain)
        trainer = fitted(other, **options)
        assert not was_lean(trainer)
        assert torch.equal(plain.linear.weight, other.linear.weight) == ("profiler" in options)

    def test_an_optimizer_that_needs_its_closure_gets_one(self) -> None:
        model = Regression(optimizer=torch.optim.LBFGS)
        assert not was_lean(fitted(model))
        assert torch.allclose(model.linear.weight, torch.ones(1, 3), atol=1e-3)

    def test_an_optimizer_whose_step_says_nothing_of_a_closure_gets_one_too(self) -> None:
        class Wrapped(torch.optim.SGD):
            def step(self, *arguments: Any, **named: Any) -> Any:  # type: ignore[override]
                assert arguments or named
                return super().step(*arguments, **named)

        assert not was_lean(fitted(Regression(optimizer=Wrapped)))


def test_nobody_profiles_unless_asked() -> None:
    assert isinstance(StreamTrainer(accelerator="cpu", logger=False).profiler, Unprofiled)
    assert isinstance(StreamTrainer(accelerator="cpu", logger=False, profiler="simple").profiler, SimpleProfiler)


def test_errors_pass_through() -> None:
    with pytest.raises(KeyError, match="lost"), Unprofiled().profile("a hook"):
        raise KeyError("lost")
