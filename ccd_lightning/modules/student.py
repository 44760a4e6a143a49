"""The compact recommender that is deployed."""

from __future__ import annotations

from dataclasses import replace

from typing_extensions import override

from ccd_lightning.backbones import Backbone, NewRows
from ccd_lightning.data.history import History
from ccd_lightning.modules.base import Recommender
from ccd_lightning.objectives import Objective
from ccd_lightning.types import Stage, StageSettings


class Student(Recommender):
    """The student: distilled from the teacher system, then kept fresh on the stream.

    Args:
        backbone: the model.
        new_rows: how rows of new users and items begin.
        new_rows_topk: two-hop neighbours of a new entity.
        objectives: further terms of the loss in every stage that the student learns.
    """

    def __init__(
        self,
        backbone: Backbone,
        new_rows: NewRows = "neighbours",
        new_rows_topk: int = 20,
        objectives: list[Objective] | None = None,
    ) -> None:
        super().__init__(backbone, new_rows, new_rows_topk, objectives)
        self._afresh = False

    def start_afresh(self, block: int) -> None:
        """Forget everything when the next stage begins (the paper's Stage 1 begins with a new student).

        Args:
            block: index of the block that the stage learns.
        """
        self._afresh = True

    @override
    def begin_stage(self, stage: Stage, settings: StageSettings, history: History, seed: int, first_epoch: int) -> None:
        # The run's seed is known only when the stage begins, after a resumption too.
        settings = replace(settings, afresh=settings.afresh or self._afresh)
        self._afresh = False
        super().begin_stage(stage, settings, history, seed, first_epoch)
