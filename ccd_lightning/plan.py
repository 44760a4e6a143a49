"""The order of things: which stages a stream consists of, and how each kind is optimised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ccd_lightning.types import Stage, StageKind, StageSettings


@dataclass
class StreamPlan:
    """The (block, stage) list of a stream.

    On D_0 every teacher learns, then the student is distilled. On every later block the student is updated, then each teacher,
    then the student is distilled from them (paper, Figure 2); blocks between two teacher cycles only update the student.

    Args:
        base: training of each teacher on D_0.
        first_distillation: Stage 1 on D_0, where the student begins.
        distillation: Stage 1 on later blocks, where the student learns from the updated teacher system.
        student_update: Stage 2, the student learns a new block.
        teacher_update: Stage 3, each teacher learns a new block.
        teacher_every: blocks of one teacher cycle, so that the student can be updated more often than the teachers.
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

    def __post_init__(self) -> None:
        """Refuse an empty cycle."""
        if self.teacher_every < 1:
            raise ValueError(
                f"`teacher_every` is {self.teacher_every}, but a cycle has at least 1 block: pass 1 or more."
            )

    def stages(self, block: int, num_teachers: int) -> Iterator[Stage]:
        """The stages of one block in order.

        >>> [stage.name for stage in StreamPlan().stages(1, num_teachers=2)]
        ['block1-student_update', 'block1-teacher_update-0', 'block1-teacher_update-1', 'block1-distillation']
        """
        if block > 0:
            yield Stage(block, StageKind.STUDENT_UPDATE)
        if block % self.teacher_every:
            return
        kind = StageKind.TEACHER_UPDATE if block else StageKind.BASE
        for teacher in range(num_teachers):
            yield Stage(block, kind, teacher, is_last_of_kind=teacher == num_teachers - 1)
        yield Stage(block, StageKind.DISTILLATION)

    def settings(self, stage: Stage) -> StageSettings:
        """How a stage is optimised."""
        if stage.kind is StageKind.DISTILLATION and stage.block == 0:
            return self.first_distillation
        settings: StageSettings = getattr(self, stage.kind.value)
        return settings
