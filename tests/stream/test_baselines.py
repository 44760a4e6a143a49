"""What one could do in place of the collaboration, as stages of the same stream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ccd_lightning.backbones import BPRMF, ItemKNN, LightGCN, Popularity
from ccd_lightning.callbacks import (
    DistillationCallback,
    GenerationSettings,
    ReplaySettings,
    StreamReport,
    TeacherReplaySettings,
)
from ccd_lightning.data import ContinualDataModule
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.modules import CollaborativeDistillation
from ccd_lightning.plan import StreamPlan
from ccd_lightning.types import Split, StageSettings

from .conftest import RunStream, small_source, small_system

NOTHING = {"stability": 0, "plasticity": 0}


def no_transfer() -> DistillationCallback:
    """Nobody teaches anybody."""
    no_lists, no_replay = GenerationSettings(user_weight=0.0, item_weight=0.0), ReplaySettings(**NOTHING)
    return DistillationCallback(no_lists, no_replay, TeacherReplaySettings(**NOTHING, student=0), exclusion=0)


class Disturb(StreamCallback):
    """Replaces parameters by noise when a stage has ended."""

    def __init__(self, after: str, members: bool) -> None:
        self.after, self.members = after, members

    def on_stage_end(self, trainer: Any, system: CollaborativeDistillation, stage: Any) -> None:
        if stage.name == self.after:
            for model in system.members() if self.members else [system.student]:
                for parameter in model.backbone.parameters():
                    torch.nn.init.normal_(parameter)


def same(first: Any, second: Any) -> bool:
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_full_batch_retraining_owes_nothing_to_the_blocks_before(tmp_path: Path, run_stream: RunStream) -> None:
    plan = StreamPlan(cycle=["base", "distillation"])
    options: dict[str, Any] = {"plan": plan, "source": small_source(blocks=2)}
    _, plain = run_stream(tmp_path / "plain", **options)
    noise = tuple(Disturb("block0-distillation", members) for members in (True, False))
    _, disturbed = run_stream(tmp_path / "disturbed", callbacks=noise, **options)
    assert same(plain.teachers, disturbed.teachers)
    assert same(plain.student, disturbed.student)


def test_full_batch_retraining_learns_all_interactions_and_validates_on_all_blocks(
    tmp_path: Path, run_stream: RunStream
) -> None:
    seen: dict[str, tuple[int, tuple[int, ...]]] = {}

    class Count(StreamCallback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            own = pl_module.epoch_batches()[0]
            seen[pl_module.stage.name] = (len(own.columns[0]), trainer.stream.valid_blocks)

    trainer, _ = run_stream(tmp_path, callbacks=(Count(),), plan=StreamPlan(cycle=["base", "distillation"]))
    sizes = [block.train.size for block in trainer.stream.blocks]
    for stage in ("block2-base-0", "block2-base-1", "block2-distillation"):
        assert seen[stage] == (sum(sizes), (0, 1, 2))
    assert seen["block0-base-0"] == (sizes[0], (0,))


def test_fine_tuning_without_lists_learns_nothing_from_the_teachers(tmp_path: Path, run_stream: RunStream) -> None:
    plan = StreamPlan(cycle=["student_update", "teacher_update"])
    students = []
    for name, noise in (("plain", ()), ("disturbed", (Disturb("block0-base-1", members=True),))):
        options: dict[str, Any] = {"plan": plan, "distillation": no_transfer(), "source": small_source(blocks=2)}
        _, system = run_stream(tmp_path / name, callbacks=noise, **options)
        students.append(system.student)
    assert same(*students)


def test_a_fresh_update_begins_again(tmp_path: Path, run_stream: RunStream) -> None:
    plan = StreamPlan(teacher_update=StageSettings(afresh=True), cycle=["teacher_update"])
    teachers = []
    for name, noise in (("plain", ()), ("disturbed", (Disturb("block0-distillation", members=True),))):
        options: dict[str, Any] = {"plan": plan, "distillation": no_transfer(), "source": small_source(blocks=2)}
        teachers.append(run_stream(tmp_path / name, callbacks=noise, **options)[1].teachers)
    assert same(*teachers)


@pytest.mark.parametrize("factory", [Popularity, ItemKNN])
def test_a_model_that_counts_goes_through_the_stream_without_training(
    tmp_path: Path, run_stream: RunStream, factory: Any
) -> None:
    options: dict[str, Any] = {"distillation": no_transfer(), "callbacks": (StreamReport(figures=False),)}
    system = small_system([factory()], factory())
    trainer, system = run_stream(tmp_path / "a", system=system, **options)
    assert trainer.global_step == 0
    assert all(stage["epochs"] == 0 for stage in trainer.record.stages)
    alone = factory()
    for block in range(3):
        alone.meet(trainer.stream.history(block), "neighbours", 5, torch.Generator())
    users = torch.arange(20)
    assert torch.equal(system.student.backbone.scores(users), alone.scores(users))
    again, _ = run_stream(tmp_path / "a", system=small_system([factory()], factory()), ckpt_path="last", **options)
    assert again.record.summary()["student"] == trainer.record.summary()["student"]


def recall_by_hand(system: CollaborativeDistillation, stream: ContinualDataModule, block: int, split: Split) -> float:
    """Recall@20 of the student on one split of a block, user by user."""
    asked = stream.blocks[block]
    found = []
    for user in asked.split(split).users.unique().tolist():
        scores = system.student.backbone.scores(torch.tensor([user]))[0].detach()
        for other in Split:
            if other is not split:
                part = asked.split(other)
                scores[part.items[part.users == user]] = -torch.inf
        wanted = asked.split(split).items[asked.split(split).users == user].unique()
        best = scores.topk(20)
        hits = torch.isin(best.indices[best.values > -torch.inf], wanted).sum()
        found.append(float(hits) / min(len(wanted), 20))
    return sum(found) / len(found)


def test_validation_results_stand_beside_those_of_the_test(tmp_path: Path, run_stream: RunStream) -> None:
    options: dict[str, Any] = {"distillation": no_transfer(), "plan": StreamPlan(cycle=["student_update"])}
    trainer, system = run_stream(
        tmp_path, system=small_system([BPRMF(8)], LightGCN(4)), callbacks=(StreamReport(figures=False),), **options
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for split, rows in ((Split.VALID, metrics["valid"]["student"]), (Split.TEST, metrics["student"])):
        by_hand = [recall_by_hand(system, trainer.stream, block, split) for block in range(3)]
        assert rows["recall@20"]["A"][-1] == pytest.approx(by_hand, abs=1e-9)
    assert "forward_transfer" not in metrics["valid"]["student"]["recall@20"]


def test_an_older_checkpoint_without_validation_results_is_read(tmp_path: Path, run_stream: RunStream) -> None:
    trainer, _ = run_stream(tmp_path, source=small_source(blocks=1))
    state = trainer.record.state_dict()
    del state["valid"]
    fresh = type(trainer.record)()
    fresh.load_state_dict(state)
    assert fresh.summary()["student"] == trainer.record.summary()["student"]
    assert fresh.summary()["valid"]["student"] == {}
