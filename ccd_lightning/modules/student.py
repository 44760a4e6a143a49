"""The compact recommender that is deployed."""

from __future__ import annotations

from ccd_lightning.modules.base import Recommender


class Student(Recommender):
    """The student: distilled from the teacher system, then kept fresh on the stream."""

    def start_afresh(self, block: int) -> None:
        """Forget everything before the distillation of a block (the paper's Stage 1 begins with a new student).

        Args:
            block: index of the block, which the new beginning is seeded with.
        """
        self.backbone.reset(self.generator("fresh student", block))
