"""How long the rest of a stream will take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ccd_lightning.reporting.console import model_name
from ccd_lightning.resume import stages_left

if TYPE_CHECKING:
    from ccd_lightning.trainer import StreamTrainer

ROWS_OF_A_USER = 20
"""Rows that weigh as much as what is drawn for a user at each epoch: replayed items, and lists."""


class Work(NamedTuple):
    """A stage's amount of work.

    Attributes:
        kind: kind of the stage.
        model: who learns in it.
        amount: rows times epochs, or a part of it.
        seconds: what it took; 0 for work that lies ahead.
    """

    kind: str
    model: str
    amount: float
    seconds: float = 0.0


def work_of_stages(trainer: StreamTrainer, num_teachers: int) -> dict[str, Work]:
    """The stages of the whole stream by name, those that are done and those to come: epochs at most, times rows and users.

    Args:
        trainer: that begins or goes on with a stream, perhaps by another plan than before.
        num_teachers: teachers of its system.
    """
    plan, last, done = trainer.plan, trainer.last_stage, {stage["name"] for stage in trainer.record.stages}
    found = {}
    for block in trainer.stream.blocks:
        size_of_epoch = block.train.size + ROWS_OF_A_USER * block.num_users
        stages = list(plan.stages(block.index, num_teachers))
        left = stages
        if last is not None and block.index <= last.block:
            left = stages_left(stages, last, done) if block.index == last.block else []
        for stage in stages:
            if stage in left or stage.name in done:
                amount = float(size_of_epoch * trainer.epochs_of(plan.settings(stage)))
                found[stage.name] = Work(stage.kind.value, model_name(stage), amount)
    return found


def remaining_seconds(done: Sequence[Work], ahead: Sequence[Work]) -> float | None:
    """Seconds that the work ahead will take at the pace of the work done that is most like it.

    That is the same model in the same kind of stage, else the same kind, else the same model, else all the work done.

    Args:
        done: work with the seconds it took.
        ahead: work to come.

    Returns:
        ``None`` as long as nothing was done.

    >>> done = [Work("base", "teacher", 100, 10.0), Work("update", "student", 10, 4.0)]
    >>> remaining_seconds(done, [Work("update", "student", 20), Work("base", "teacher", 50)])
    13.0
    """
    done = [work for work in done if work.amount]
    if not done:
        return None
    return sum(work.amount * _pace(done, work) for work in ahead)


def _pace(done: Sequence[Work], like: Work) -> float:
    candidates = (
        [work for work in done if (work.kind, work.model) == (like.kind, like.model)],
        [work for work in done if work.kind == like.kind],
        [work for work in done if work.model == like.model],
        done,
    )
    alike = next(found for found in candidates if found)
    return sum(work.seconds for work in alike) / sum(work.amount for work in alike)
