"""A student that is deployed over another graph than it learns over: what is learned stays the same to the bit."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from ccd_lightning.backbones import LightGCN
from ccd_lightning.data import ContinualDataModule
from ccd_lightning.data.history import History
from ccd_lightning.modules import CollaborativeDistillation
from ccd_lightning.plan import StreamPlan
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import RankingBatch

from ..tiny import random_history
from .conftest import RunStream, small_source, small_system

DECAY = 0.3


def system_of(decay: float | None) -> CollaborativeDistillation:
    return small_system(student=LightGCN(4, graph="block", deployed_decay=decay))


def matrix(trainer: StreamTrainer, role: str) -> Any:
    return trainer.record.summary()[role]["recall@20"]["A"]


@pytest.mark.parametrize("decay", [1.0, 0.3])
def test_deployed_model_ranks_over_old_edges_and_learns_over_the_block_s(decay: float) -> None:
    history = random_history([(8, 9), (12, 13), (13, 15)])
    model, plain = (LightGCN(5, 2, "block", deployed_decay=each) for each in (decay, None))
    decayed = LightGCN(5, 2, "cumulative", edge_decay=decay)
    for last in range(3):
        past = History(history.blocks[: last + 1])
        for one in (model, plain, decayed):
            one.meet(past, "neighbours", 3, torch.Generator().manual_seed(last))
            # Rows of unit scale, so that differences are well above rounding.
            for number, table in enumerate(one.parameters()):
                table.data = torch.randn(table.shape, generator=torch.Generator().manual_seed(number))
        every = torch.arange(past.block.num_users)
        model.settle(True)
        assert torch.equal(model.scores(every), decayed.scores(every))
        assert torch.equal(deepcopy(model).scores(every), decayed.scores(every))
        assert torch.equal(model.scores(every), plain.scores(every)) == (last == 0)
        model.settle(False)
        users, items = past.block.train.users, past.block.train.items
        batch = RankingBatch(users, items, (items.unsqueeze(1) + 1) % past.block.num_items, len(users))
        for one in (model, plain):
            one.zero_grad()
            one.loss(batch).backward()
        for mine, its in zip(model.parameters(), plain.parameters(), strict=True):
            assert torch.equal(mine.grad, its.grad)
        model.settle(True)


def test_only_the_distilled_student_is_measured_over_old_edges(tmp_path: Path, run_stream: RunStream) -> None:
    plain_trainer, plain = run_stream(tmp_path / "plain", system=system_of(None))
    trainer, system = run_stream(tmp_path / "deployed", system=system_of(DECAY))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, system.state_dict()[name]), name
    for role in ("teacher", "student"):
        assert matrix(trainer, role) == matrix(plain_trainer, role)
    assert matrix(trainer, "distilled")[0] == matrix(plain_trainer, "distilled")[0]
    assert matrix(trainer, "distilled")[1:] != matrix(plain_trainer, "distilled")[1:]
    decayed = LightGCN(4, graph="cumulative", edge_decay=DECAY)
    decayed.load_state_dict(system.student.backbone.state_dict())
    decayed.observe(ContinualDataModule(small_source()).history(2))
    users = torch.arange(decayed.num_users)
    assert torch.equal(system(users), decayed.scores(users))


@pytest.mark.parametrize("later", [["teacher_update", "distillation"], ["distillation", "teacher_update"]])
def test_what_is_loaded_is_what_was_deployed(tmp_path: Path, run_stream: RunStream, later: Any) -> None:
    plan = StreamPlan(cycle=["student_update", *later])
    trainer, system = run_stream(tmp_path, system=system_of(DECAY), plan=plan)
    loaded, tester = system_of(DECAY), StreamTrainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    tester.test(loaded, datamodule=ContinualDataModule(small_source()), ckpt_path="last", verbose=False)
    found = [blocks["all"]["recall@20"] for blocks in loaded.test_results()["student"].values()]
    assert found == pytest.approx(matrix(trainer, "distilled")[-1], abs=1e-12)
    assert loaded.student.backbone.factors()[0].equal(system.student.backbone.factors()[0])


@pytest.mark.parametrize(
    "cycle",
    [
        None,
        ["teacher_update", "distillation"],
        ["distillation", "student_update", "teacher_update"],
    ],
)
def test_a_stream_that_goes_on_is_the_whole_one(tmp_path: Path, run_stream: RunStream, cycle: Any) -> None:
    options = {} if cycle is None else {"plan": StreamPlan(cycle=cycle)}
    whole, expected = run_stream(tmp_path / "whole", system=system_of(DECAY), **options)
    run_stream(tmp_path / "parts", system=system_of(DECAY), source=small_source(blocks=2), **options)
    trainer, system = run_stream(tmp_path / "parts", system=system_of(DECAY), ckpt_path="last", **options)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, system.state_dict()[name]), name
    for role in ("teacher", "student", "distilled"):
        assert matrix(trainer, role) == matrix(whole, role)
    plain, _ = run_stream(tmp_path / "plain", system=system_of(None), **options)
    assert matrix(trainer, "teacher") == matrix(plain, "teacher")
    is_distilled_last = cycle is None or cycle[-1] == "distillation"
    final = "distilled" if is_distilled_last else "student"
    assert (matrix(trainer, final) == matrix(plain, final)) == (not is_distilled_last)
