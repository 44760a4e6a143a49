"""Lean steps learn what Lightning's own steps learn, and give way to them wherever somebody takes part in a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.profilers import SimpleProfiler

from ccd_lightning import lean
from ccd_lightning.lean import Unprofiled
from ccd_lightning.trainer import StreamTrainer

from .regression import STEPS, Regression, fitted, was_lean

HEARD_BY_CALLBACKS = ["on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step"]

HEARD_BY_MODULES = [
    *HEARD_BY_CALLBACKS,
    "backward",
    "configure_gradient_clipping",
    "optimizer_step",
    "optimizer_zero_grad",
]


class Ear(Callback):
    """Counts how often one hook is called."""

    def __init__(self, hook: str) -> None:
        self.calls = 0
        setattr(self, hook, self._heard)

    def _heard(self, *arguments: Any) -> None:
        self.calls += 1


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*returned `None`")
class TestSteps:
    @pytest.mark.parametrize("returned", ["tensor", "dict", "sometimes none"])
    def test_learn_and_count_as_lightnings_own(self, returned: str, monkeypatch: pytest.MonkeyPatch) -> None:
        models = [Regression(returned), Regression(returned)]
        trainers = [fitted(models[0])]
        monkeypatch.setattr(lean, "is_lean", lambda trainer: False)
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
