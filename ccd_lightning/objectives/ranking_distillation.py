"""Stage 1: the student learns the teacher system's rankings (relaxed ranking distillation from both sides)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ccd_lightning import functional as F
from ccd_lightning.backbones import Backbone
from ccd_lightning.data.loader import BatchSet
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.objectives.base import Objective
from ccd_lightning.types import ListBatch, RankingBatch, Side, UserBatch


class RankingDistillation(Objective):
    """Relaxed ranking distillation (DE-RRD, Kang et al., CIKM 2020) of one side's ranking lists.

    For an entity with the interesting list pi_1, ..., pi_K (best first) the loss is
    sum_n [log(sum_{m >= n} exp s(pi_m) + sum_{uninteresting} exp s) - s(pi_n)], scores capped at 10. The sum over the
    uninteresting ones is exact by default: one product with the whole catalogue; with ``sample``, it is estimated
    without bias.

    User lists are learned by the users of the batches that the own loss brings; item lists bring batches of their own,
    and need a model with embeddings.

    Args:
        lists: interesting entities of each row, best first, int64 ``(rows, K)``, -1 beyond the end.
        excluded: pairs (entity, other) that are not uninteresting: observed, interesting or in an exclusion list.
        side: whose lists.
        weight: weight in the stage's loss.
        sample: uninteresting entities drawn for each batch and shared by its rows; ``None`` takes all of them, and so
            do models without embeddings, which score all items anyway.
        propagated: learn on the final embeddings of a graph model rather than on its layer 0.
    """

    def __init__(
        self,
        lists: Tensor,
        excluded: PairSet,
        side: Side,
        weight: float = 0.01,
        sample: int | None = None,
        propagated: bool = False,
    ) -> None:
        super().__init__()
        self.name = f"{side.value}_lists"
        self.batch_types = (ListBatch,) if side is Side.ITEM else (RankingBatch, UserBatch)
        self.lists, self.excluded, self.side = lists, excluded, side
        self._padded = bool((lists < 0).any())
        self.constant_weight, self.sample, self.propagated = weight, sample, propagated
        self._generator = torch.Generator()

    def weight(self, epoch: int) -> float:
        """A constant."""
        return self.constant_weight

    def prepare(self, backbone: Backbone) -> None:
        """Refuse item lists for a model that scores whole rows of items only.

        Raises:
            ValueError: if the model has no embeddings.
        """
        if self.side is Side.ITEM and backbone.embeddings() is None:
            raise ValueError(
                f"{type(backbone).__name__} has no embeddings, and item lists compare users for an item: distil user"
                " lists alone into it."
            )

    def batches(self, batch_size: int, generator: torch.Generator) -> BatchSet | None:
        """Every entity once, for the side that no other batches bring."""
        entities = torch.randperm(self.lists.shape[0], generator=generator)
        self._generator = generator
        if self.side is Side.USER:
            return None

        def build(rows: Tensor, size: int) -> ListBatch:
            return ListBatch(rows, self.side, size)

        return BatchSet(build, (entities,), batch_size, owner=entities)

    def forward(self, backbone: Backbone, batch: RankingBatch | UserBatch | ListBatch) -> Tensor:
        """Sum over the batch's distinct entities."""
        entities = batch.entities if isinstance(batch, ListBatch) else self._distinct(batch.users)
        if self.lists.device != entities.device:
            self.lists, self.excluded = self.lists.to(entities.device), self.excluded.to(entities.device)
        lists = self.lists.index_select(0, entities)
        present = lists.clamp_min(0) if self._padded else lists
        found = backbone.embeddings(self.propagated)
        if found is None:
            interesting, rest = self._of_score_rows(backbone.scores(entities), entities, present)
        else:
            own, keys = found if self.side is Side.USER else reversed(found)
            query = F.gather_rows(own, entities)
            interesting = F.listed_products(query, keys, present)
            rest = self._log_rest(query, keys, entities)
        return F.relaxed_ranking_loss_from_rest(interesting, rest, valid=lists >= 0 if self._padded else None)

    def _distinct(self, users: Tensor) -> Tensor:
        """Those of the users that have a list, once each, ascending; counting is faster than sorting."""
        return torch.bincount(users, minlength=self.lists.shape[0])[: self.lists.shape[0]].nonzero().squeeze(-1)

    def _log_rest(self, query: Tensor, keys: Tensor, entities: Tensor) -> Tensor:
        """Log of the sum over the uninteresting ones, float ``(B, 1)``."""
        if self.sample is None or self.sample >= keys.shape[0]:
            return F.masked_logsumexp(query, keys, *self.excluded.of(entities))
        drawn = torch.randperm(keys.shape[0], generator=self._generator)[: self.sample].to(keys.device)
        estimate = F.masked_logsumexp(query, F.gather_rows(keys, drawn), *self.excluded.among(entities, drawn))
        return estimate + math.log(keys.shape[0] / self.sample)

    def _of_score_rows(self, scores: Tensor, entities: Tensor, lists: Tensor) -> tuple[Tensor, Tensor]:
        """The same from full score rows, for models that are no product of embeddings (user side only)."""
        absent = torch.zeros_like(scores, dtype=torch.bool)
        absent[self.excluded.of(entities)] = True
        rest = F.sampled_logsumexp(scores, scores.shape[1], absent, F.SCORE_CAP)
        return scores.gather(1, lists), rest
