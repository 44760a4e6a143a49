"""The members of the teacher system, and the system as one recommender."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ccd_lightning import functional as F
from ccd_lightning.backbones import Backbone, EmbeddingBackbone, NewRows, evaluating
from ccd_lightning.checks import require_whole
from ccd_lightning.modules.base import Recommender
from ccd_lightning.objectives import Objective, PersonalWeights


class Teacher(Recommender):
    """One large recommender of the teacher system.

    Args:
        backbone: the model.
        new_rows: how rows of new users and items begin.
        new_rows_topk: two-hop neighbours of a new entity.
        clusters: item clusters of the personal imitation weights, parameters that outlive the stages; 0 leaves PIW out.
            Only embedding models can have them.
        objectives: further terms of the loss in every stage that the teacher learns.
    """

    def __init__(
        self,
        backbone: Backbone,
        new_rows: NewRows = "neighbours",
        new_rows_topk: int = 20,
        clusters: int = 0,
        objectives: list[Objective] | None = None,
    ) -> None:
        super().__init__(backbone, new_rows, new_rows_topk, objectives)
        require_whole("clusters", clusters, 0)
        self.personal: PersonalWeights | None = None
        if clusters:
            if not isinstance(backbone, EmbeddingBackbone):
                raise ValueError(
                    f"`clusters` is {clusters}, but {type(backbone).__name__} has no embeddings to cluster: leave it"
                    " at 0."
                )
            self.personal = PersonalWeights(backbone.dim, clusters).requires_grad_(False)


class TeacherSystem:
    """An ensemble of recommenders, fused by ranks (paper, teacher system).

    score(u, i) = mean over the members of (rank_m(u, i) + 1)^(-power), which needs no calibration between members.

    Args:
        members: the models.
        power: exponent of the rank fusion.
    """

    def __init__(self, members: Sequence[Backbone], power: float = 0.05) -> None:
        self.members, self.power = list(members), power

    @property
    def num_users(self) -> int:
        """Users that every member knows."""
        return min(member.num_users for member in self.members)

    @property
    def num_items(self) -> int:
        """Items that every member knows."""
        return min(member.num_items for member in self.members)

    @torch.no_grad()
    def scores(self, users: Tensor) -> Tensor:
        """Fused scores of all known items, float ``(B, I)``."""
        with evaluating(*self.members):
            return F.fuse_ranks([member.scores(users)[:, : self.num_items] for member in self.members], self.power)
