"""The order of things: which stages a stream consists of, and how each kind is optimised."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from ccd_lightning.types import Stage, StageKind, StageSettings

MEASURED = {
    StageKind.BASE: "teacher",
    StageKind.TEACHER_UPDATE: "teacher",
    StageKind.STUDENT_UPDATE: "student",
    StageKind.DISTILLATION: "distilled",
}
"""Who is measured on all blocks so far when the last stage of a kind ends."""

StageName = Literal["base", "student_update", "teacher_update", "distillation"]
"""A kind of stage, as a configuration names it."""


@dataclass
class StreamPlan:
    """The (block, stage) list of a stream.

    On D_0 every teacher learns, then the student is distilled. On every later block the student is updated, then each teacher,
    then the student is distilled from them (paper, Figure 2); blocks between two teacher cycles only update the student, and the
    teachers learn them together with the next one that they do learn.

    Args:
        base: training of each teacher on D_0.
        first_distillation: Stage 1 on D_0, where the student begins.
        distillation: Stage 1 on later blocks, where the student learns from the updated teacher system.
        student_update: Stage 2, the student learns a new block.
        teacher_update: Stage 3, each teacher learns a new block.
        teacher_every: blocks of one teacher cycle, so that the student can be updated more often than the teachers.
        cycle: the stages of every block after D_0 in order, by default all three. Fewer of them make baselines, such as
            ``[student_update]``: the student of D_0 learns alone. In a cycle with ``base`` teachers, and students that are
            distilled, begin afresh on all the interactions so far, as on D_0: full-batch retraining.
    """

    base: StageSettings = field(
        default_factory=lambda: StageSettings(learning_rate=2e-3, batch_size=4096, negatives=2, patience=3)
    )
    first_distillation: StageSettings = field(
        default_factory=lambda: StageSettings(learning_rate=5e-3, batch_size=1024, evaluate_every=0)
    )
    distillation: StageSettings = field(default_factory=lambda: StageSettings(batch_size=1024, evaluate_every=0))
    student_update: StageSettings = field(default_factory=StageSettings)
    teacher_update: StageSettings = field(default_factory=StageSettings)
    teacher_every: int = 1
    cycle: list[StageName] = field(default_factory=lambda: ["student_update", "teacher_update", "distillation"])

    def __post_init__(self) -> None:
        """Refuse an empty cycle, or one that nobody can go through."""
        if self.teacher_every < 1:
            raise ValueError(
                f"`teacher_every` is {self.teacher_every}, but a cycle has at least 1 block: pass 1 or more."
            )
        known = get_args(StageName)
        if not self.cycle or not set(self.cycle) <= set(known) or len(set(self.cycle)) < len(self.cycle):
            raise ValueError(
                f"`cycle` is {self.cycle}, but must name some of {', '.join(known)}, each once: mend the list."
            )

    def stages(self, block: int, num_teachers: int) -> Iterator[Stage]:
        """The stages of one block in order.

        >>> [stage.name for stage in StreamPlan().stages(1, num_teachers=2)]
        ['block1-student_update', 'block1-teacher_update-0', 'block1-teacher_update-1', 'block1-distillation']
        """
        for kind in map(StageKind, self.cycle if block else ("base", "distillation")):
            if kind is StageKind.STUDENT_UPDATE:
                yield Stage(block, kind)
            elif block % self.teacher_every:
                continue
            elif kind is StageKind.DISTILLATION:
                yield Stage(block, kind)
            else:
                for teacher in range(num_teachers):
                    yield Stage(block, kind, teacher, is_last_of_kind=teacher == num_teachers - 1)

    def settings(self, stage: Stage) -> StageSettings:
        """How a stage is optimised."""
        retrained = stage.block > 0 and "base" in self.cycle and stage.kind in (StageKind.BASE, StageKind.DISTILLATION)
        is_first = stage.kind is StageKind.DISTILLATION and (stage.block == 0 or retrained)
        found: StageSettings = self.first_distillation if is_first else getattr(self, stage.kind.value)
        return replace(found, past=math.inf, afresh=True, monitor_seen=True) if retrained else found
