"""Which objectives the settings of the knowledge transfer hand to whom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from typing_extensions import override

from ccd_lightning.backbones import BPRMF, ItemKNN, Popularity
from ccd_lightning.callbacks import (
    DistillationCallback,
    GenerationSettings,
    GraphSettings,
    ReplaySettings,
    TeacherReplaySettings,
    distillation,
)
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.modules import CollaborativeDistillation, Student, Teacher
from ccd_lightning.objectives import GraphDistillation, Objective, RankingDistillation, Replay

from .conftest import new_stream, new_trainer


class Watch(StreamCallback):
    """Keeps the objectives of every stage."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Objective]] = {}

    @override
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.seen[pl_module.stage.name] = list(pl_module.objectives)


def objectives(
    folder: Path, student: Any = None, teacher: Any = None, clusters: int = 0, **settings: Any
) -> dict[str, list[Objective]]:
    """The objectives of each stage of two blocks."""
    watch = Watch()
    members = [Teacher(teacher or BPRMF(6), clusters=clusters)]
    system = CollaborativeDistillation(Student(student or BPRMF(4)), members, ks=(5, 20))
    new_trainer(folder, DistillationCallback(**settings), watch).fit(system, datamodule=new_stream(blocks=2))
    return watch.seen


def of_kind(found: list[Objective], kind: type) -> list[Any]:
    return [objective for objective in found if isinstance(objective, kind)]


@pytest.mark.parametrize("personal", [True, False])
def test_personal_weights_can_be_left_out(tmp_path: Path, personal: bool) -> None:
    graph = GraphSettings(weight=1.0, personal=personal)
    seen = objectives(tmp_path, clusters=3, graph=graph)
    (objective,) = of_kind(seen["block1-teacher_update-0"], GraphDistillation)
    assert (objective.personal is not None) is personal


@pytest.mark.parametrize(
    ("weights", "names"),
    [((0.0, 0.01), ["item_lists"]), ((0.01, 0.0), ["user_lists"]),
     ((0.0, 0.0), [])],
)  # fmt: skip
def test_lists_without_weight_are_left_out(tmp_path: Path, weights: tuple[float, float], names: list[str]) -> None:
    seen = objectives(tmp_path, generation=GenerationSettings(*weights))
    for stage in ("block0-distillation", "block1-distillation"):
        assert [objective.name for objective in of_kind(seen[stage], RankingDistillation)] == names


def test_replay_without_decay_weighs_the_same_in_every_epoch(tmp_path: Path) -> None:
    seen = objectives(tmp_path, student_replay=ReplaySettings(decay=None))
    (replay,) = of_kind(seen["block1-student_update"], Replay)
    assert replay.weight(0) == replay.weight(7) == 0.5
    (replay,) = of_kind(seen["block1-teacher_update-0"], Replay)
    assert replay.weight(7) < replay.weight(0)


def test_teacher_replay_of_which_one_thing_is_said_keeps_the_rest(tmp_path: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DistillationCallback, "distillation")
    taken = parser.instantiate_classes(parser.parse_args(["--distillation.teacher_replay.top_n=50"])).distillation
    assert taken.teacher_replay == TeacherReplaySettings(top_n=50, stability=3, plasticity=3, decay=5.0, student=3)
    seen = objectives(tmp_path, teacher_replay=taken.teacher_replay)
    (replay,) = of_kind(seen["block1-teacher_update-0"], Replay)
    assert [source.name for source in replay.draw.sources] == ["stability", "plasticity", "student"]
    (replay,) = of_kind(seen["block1-student_update"], Replay)
    assert [source.name for source in replay.draw.sources] == ["stability", "plasticity"]


def test_a_model_that_counts_teaches_and_takes_no_lesson(tmp_path: Path) -> None:
    seen = objectives(tmp_path / "teacher", teacher=ItemKNN())
    assert len(of_kind(seen["block0-distillation"], RankingDistillation)) == 2
    assert not any("teacher" in name or "base" in name for name in seen)
    seen = objectives(tmp_path / "student", student=Popularity())
    assert all("teacher" in name or "base" in name for name in seen)


class Places(StreamCallback):
    """The first places of student and proxies as Stage 1 begins, as pairs, and what its lists leave out."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.wanted: dict[str, set[tuple[int, int]]] = {}
        self.excluded: dict[str, set[tuple[int, int]]] = {}

    @override
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if "distillation" not in pl_module.stage.name:
            return
        system, name = self.system, pl_module.stage.name
        observed = trainer.stream.history(pl_module.stage.block).observed("cumulative")
        pairs = set()
        for model in (system.student.backbone, *map(system.proxy, ("stability", "plasticity"))):
            scores = (
                model.scores(torch.arange(model.num_users)).detach().clone() if model.num_users else torch.empty(0, 0)
            )
            for user, row in enumerate(scores):
                seen = observed.of(torch.tensor([user]))[1]
                row[seen[seen < len(row)]] = -torch.inf
                pairs |= {(user, item) for item in row.topk(self.places).indices.tolist()}
        self.wanted[name] = pairs
        for objective in of_kind(pl_module.objectives, RankingDistillation):
            rows, columns = objective.excluded.rows.tolist(), objective.excluded.columns.tolist()
            by_user = objective.name == "user_lists"
            self.excluded[name] = set(zip(rows, columns, strict=True) if by_user else zip(columns, rows, strict=True))

    @override
    def on_stream_start(self, trainer: Any, system: CollaborativeDistillation) -> None:
        self.system = system


@pytest.mark.parametrize("side", ["user_weight", "item_weight"])
def test_what_student_and_proxies_rank_high_is_not_uninteresting_where_that_is_asked(tmp_path: Path, side: str) -> None:
    found = {}
    for places in (0, 6):
        other = "item_weight" if side == "user_weight" else "user_weight"
        generation = GenerationSettings(exclusion=places, list_length=3, **{other: 0.0})
        system = CollaborativeDistillation(Student(BPRMF(4)), [Teacher(BPRMF(6))], ks=(5, 20))
        found[places] = watch = Places(6)
        callback = DistillationCallback(generation=generation)
        new_trainer(tmp_path / str(places), callback, watch).fit(system, datamodule=new_stream(blocks=2))
    name = "block1-distillation"
    assert found[6].wanted[name] <= found[6].excluded[name]
    assert not found[0].wanted[name] <= found[0].excluded[name]
    # Nobody but the teachers knows anything at the first block; at the second the models are the same until Stage 1.
    assert found[6].excluded["block0-distillation"] == found[0].excluded["block0-distillation"]
    assert found[6].excluded[name] - found[0].excluded[name] <= found[6].wanted[name]


@pytest.mark.parametrize("past", [0.0, 1.0])
def test_only_those_who_draw_negatives_are_ranked_for_exclusion(
    past: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is learned is the same as with the rankings of everybody, to the last bit."""
    ranked, states = [], []
    for everybody in (False, True):
        if everybody:
            monkeypatch.setattr(distillation, "_who_draws_negatives", lambda *_: None)
        system = CollaborativeDistillation(Student(BPRMF(4)), [Teacher(BPRMF(6))], ks=(5, 20))
        watch, stream = ExcludedUsers(), new_stream(blocks=2)
        # The proxies rank for everybody, as whatever is replayed.
        callback = DistillationCallback(student_replay=ReplaySettings(stability=0, plasticity=0))
        trainer = new_trainer(tmp_path / str(everybody), callback, watch)
        trainer.plan = replace(trainer.plan, student_update=replace(trainer.plan.student_update, past=past))
        trainer.fit(system, datamodule=stream)
        ranked.append(watch.users)
        states.append(system.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    asked = set(stream.blocks[1].train.users.tolist())
    # Newcomers of the block are ranked for by nobody yet.
    assert ranked[1] > ranked[1] & asked > set()
    assert ranked[0] == (ranked[1] if past else ranked[1] & asked)


class ExcludedUsers(StreamCallback):
    """Whose high ranks are no negatives in the student's update of the last block."""

    def __init__(self) -> None:
        self.users: set[int] = set()

    @override
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if "student_update" in pl_module.stage.name:
            self.users = set(pl_module.excluded.rows.tolist())


def test_teachers_that_learned_two_blocks_at_once_hold_on_to_both(tmp_path: Path) -> None:
    watch = Watch()
    system = CollaborativeDistillation(Student(BPRMF(4)), [Teacher(BPRMF(6))], ks=(5, 20))
    stream = new_stream(blocks=5)
    trainer = new_trainer(tmp_path, DistillationCallback(graph=GraphSettings(weight=1.0)), watch)
    trainer.plan = replace(trainer.plan, teacher_every=2)
    trainer.fit(system, datamodule=stream)
    (objective,) = of_kind(watch.seen["block4-teacher_update-0"], GraphDistillation)
    learned = [stream.history(4).blocks[index].train for index in (1, 2)]
    pairs = {pair for part in learned for pair in zip(part.users.tolist(), part.items.tolist(), strict=True)}
    ratings = objective.old.ratings
    assert set(zip(ratings.rows.tolist(), ratings.columns.tolist(), strict=True)) == pairs
