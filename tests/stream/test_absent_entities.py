"""What a stage does to those who are not in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ccd_lightning.backbones import BPRMF
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.plan import StreamPlan
from ccd_lightning.types import StageSettings

from .conftest import RunStream, small_source, small_system
from .test_baselines import no_transfer


class Watch(StreamCallback):
    """Keeps the teacher's user rows as they were before its update, and counts the update's steps."""

    steps = 0
    before: torch.Tensor

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.before = pl_module.backbone.user_embedding.detach().clone()

    def on_train_batch_end(self, *args: Any) -> None:
        self.steps += 1

    def on_stage_start(self, trainer: Any, system: Any, stage: Any) -> None:
        self.steps = 0


@pytest.mark.parametrize("weight_decay", [0.0, 1e-4])
def test_weight_decay_alone_moves_users_who_stay_away(
    weight_decay: float, tmp_path: Path, run_stream: RunStream
) -> None:
    """By what Adam does to a row whose own gradient is nothing but its L2 penalty."""
    watch = Watch()
    update = StageSettings(max_epochs=6, batch_size=64, learning_rate=0.01, weight_decay=weight_decay, evaluate_every=0)
    trainer, system = run_stream(
        tmp_path,
        system=small_system([BPRMF(8)], BPRMF(4)),
        source=small_source(blocks=2),
        callbacks=(watch,),
        distillation=no_transfer(),
        plan=StreamPlan(cycle=["teacher_update"], teacher_update=update),
    )
    block = trainer.stream.blocks[1]
    away = torch.ones(block.num_old_users, dtype=torch.bool)
    met = block.train.users[block.train.users < block.num_old_users]
    away[met] = False
    assert 0 < int(away.sum()) < block.num_old_users
    before = watch.before[: block.num_old_users][away]
    expected = torch.nn.Parameter(before.clone())
    optimizer = torch.optim.Adam([expected], lr=update.learning_rate, weight_decay=weight_decay)
    for _ in range(watch.steps):
        expected.grad = torch.zeros_like(expected)
        optimizer.step()
    after = system.members()[0].backbone.user_embedding.detach()[: block.num_old_users][away]
    torch.testing.assert_close(after, expected.detach(), rtol=1e-5, atol=1e-6)
    assert torch.equal(after, before) if weight_decay == 0 else bool(after.norm() < 0.5 * before.norm())
