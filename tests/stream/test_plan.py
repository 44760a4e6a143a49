"""The order of stages and their settings."""

from __future__ import annotations

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
    ],
)
def test_settings_refuse_values_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"`{name}` is {value}, but must be"):
        StageSettings(**{name: value})  # type: ignore[arg-type]


def test_plan_refuses_an_empty_cycle() -> None:
    with pytest.raises(ValueError, match="at least 1 block"):
        StreamPlan(teacher_every=0)
