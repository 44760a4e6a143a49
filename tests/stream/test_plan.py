"""The order of stages and their settings."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ccd_lightning.plan import StreamPlan
from ccd_lightning.types import Stage, StageKind, StageSettings


def test_first_block_trains_teachers_then_distils() -> None:
    stages = list(StreamPlan().stages(0, num_teachers=2))
    assert [stage.kind for stage in stages] == [StageKind.BASE, StageKind.BASE, StageKind.DISTILLATION]
    assert [stage.is_last_of_kind for stage in stages] == [False, True, True]


@pytest.mark.parametrize(("block", "cycle"), [(1, False), (2, False), (3, True), (6, True)])
def test_teachers_learn_once_a_cycle(block: int, cycle: bool) -> None:
    kinds = [stage.kind for stage in StreamPlan(teacher_every=3).stages(block, num_teachers=1)]
    expected = [StageKind.STUDENT_UPDATE]
    assert kinds == ([*expected, StageKind.TEACHER_UPDATE, StageKind.DISTILLATION] if cycle else expected)


def test_first_distillation_has_settings_of_its_own() -> None:
    plan = StreamPlan(
        first_distillation=StageSettings(learning_rate=0.5), distillation=StageSettings(learning_rate=0.25)
    )
    assert plan.settings(Stage(0, StageKind.DISTILLATION)).learning_rate == 0.5
    assert plan.settings(Stage(1, StageKind.DISTILLATION)).learning_rate == 0.25


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", -1.0),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("weight_decay", float("inf")),
        ("evaluate_every", -1),
        ("batch_size", 0),
        ("negatives", 0),
        ("max_epochs", 0),
        ("patience", 0),
        ("weight_decay", -1.0),
        ("eps", 0.0),
        ("past", -0.5),
        ("past", float("nan")),
    ],
)
def test_settings_refuse_values_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"`{name}` is {value}, but must be"):
        StageSettings(**{name: value})  # type: ignore[arg-type]


def test_a_cycle_holds_the_named_stages_in_their_order() -> None:
    plan = StreamPlan(cycle=["teacher_update", "student_update"], teacher_every=2)
    names = [[stage.name for stage in plan.stages(block, num_teachers=2)] for block in range(3)]
    assert names == [
        ["block0-base-0", "block0-base-1", "block0-distillation"],
        ["block1-student_update"],
        ["block2-teacher_update-0", "block2-teacher_update-1", "block2-student_update"],
    ]


def test_a_cycle_with_base_retrains_as_on_the_first_block_on_everything() -> None:
    plan = StreamPlan(
        base=StageSettings(learning_rate=0.5),
        first_distillation=StageSettings(learning_rate=0.25),
        cycle=["base", "distillation"],
    )
    base, distillation = plan.stages(2, num_teachers=1)
    for stage, rate in ((base, 0.5), (distillation, 0.25)):
        found = plan.settings(stage)
        assert (found.learning_rate, found.past, found.afresh, found.monitor_seen) == (rate, math.inf, True, True)
    assert plan.settings(Stage(0, StageKind.BASE, 0)) == StageSettings(learning_rate=0.5)
    student = Stage(2, StageKind.STUDENT_UPDATE)
    assert StreamPlan(cycle=["student_update", "base"]).settings(student) == StageSettings()


@pytest.mark.parametrize("cycle", [[], ["distil"], ["distillation", "distillation"]])
def test_plan_refuses_cycles_that_nobody_can_go_through(cycle: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"`cycle` is .*, but must name some of base, student_update, .* each once"):
        StreamPlan(cycle=cycle)


def test_plan_refuses_an_empty_cycle() -> None:
    with pytest.raises(ValueError, match="at least 1 block"):
        StreamPlan(teacher_every=0)
