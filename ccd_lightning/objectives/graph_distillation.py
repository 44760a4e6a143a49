"""Contrastive distillation of an embedding teacher's past (LWC-KD) with personal imitation weights (PIW)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ccd_lightning import functional as F
from ccd_lightning.backbones import Backbone, evaluating
from ccd_lightning.data.history import History
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.distributed import global_sum, world_size
from ccd_lightning.objectives.base import Objective
from ccd_lightning.seeding import seeded_generator
from ccd_lightning.types import RankingBatch


@dataclass(frozen=True)
class OldKnowledge:
    """An embedding model's past: its layers, and the graphs among the entities it was last trained on.

    Args:
        layers: user and item embeddings of each layer before the block, float ``(U_old, d)`` and ``(I_old, d)``.
        final: the user and item embeddings whose products were the scores.
        ratings: (user, item) train interactions of the last block that the model learned.
        user_graph: similar users.
        item_graph: similar items.
    """

    layers: list[tuple[Tensor, Tensor]]
    final: tuple[Tensor, Tensor]
    ratings: PairSet
    user_graph: PairSet
    item_graph: PairSet

    @classmethod
    @torch.no_grad()
    def of(cls, backbone: Backbone, history: History, degree: int = 10) -> OldKnowledge:
        """Take it from a model that has not met the present block yet.

        Args:
            backbone: the model, in its old state.
            history: the blocks up to the last one that the model learned.
            degree: average degree of the similarity graphs.
        """
        with evaluating(backbone):
            final, layers = backbone.embeddings(), backbone.layers()
        if final is None:
            raise ValueError(
                f"{type(backbone).__name__} has no embeddings to distil: leave graph distillation out for it."
            )
        layers = [(user.clone(), item.clone()) for user, item in layers]
        ratings = history.observed("block")
        matrix = torch.sparse_coo_tensor(
            torch.stack([ratings.rows, ratings.columns]),
            torch.ones(ratings.size),
            (ratings.num_rows, ratings.num_columns),
            is_coalesced=True,
            check_invariants=False,
        )
        graphs = [F.similarity_graph(side, degree).coalesce() for side in (matrix, matrix.t().coalesce())]
        users, items = (PairSet(graph.indices()[0], graph.indices()[1], *graph.shape) for graph in graphs)
        return cls(layers, (final[0].clone(), final[1].clone()), ratings, users, items)


class PersonalWeights(nn.Module):
    """Personal imitation weights (PIW, Wang et al., AAAI 2023): by how much a user imitates its past.

    Args:
        dim: dimensions of the embeddings.
        num_clusters: item clusters.
    """

    def __init__(self, dim: int, num_clusters: int = 10) -> None:
        super().__init__()
        self.clusters = nn.Parameter(torch.zeros(num_clusters, dim))
        self.transforms = nn.Parameter(torch.zeros(num_clusters, dim, dim))
        self.hidden = nn.Linear(num_clusters, 2 * num_clusters)
        self.output = nn.Linear(2 * num_clusters, 1)
        self.ready: Tensor
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def begin(self, items: Tensor, generator: torch.Generator) -> None:
        """Draw the clusters from the item embeddings ``(I, d)``, once in the life of the teacher."""
        if self.ready:
            return
        number = self.clusters.shape[0]
        chosen = torch.randint(items.shape[0], (number,), generator=generator)
        self.clusters.copy_(items[chosen.to(items.device)])
        for parameter in (self.transforms, *self.hidden.parameters(), *self.output.parameters()):
            fan = parameter.shape[-1]
            parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) / fan**0.5)
        self.ready.fill_(True)

    def raw(self, before: Tensor, present: Tensor) -> Tensor:
        """Unscaled weights, float ``(B,)``, from old and present embeddings ``(B, d)``."""
        affinities = [F.cluster_affinity(rows, self.clusters, self.transforms) for rows in (before, present)]
        state = (affinities[0] - affinities[1]) ** 2
        hidden, output = self.hidden, self.output
        return F.raw_importance(state, hidden.weight, hidden.bias, output.weight, output.bias)


class GraphDistillation(Objective):
    """LWC-KD (Wang et al., CIKM 2021): old embeddings stay close to the present ones of the entity's old neighbours.

    Four contrastive losses (user-item, item-user, user-user, item-item), each a mean over the batch's old entities,
    averaged over the layers of a graph model; user-item and user-user rows are weighted by PIW where ``personal`` is
    given, which then adds its cluster loss over the items of the last block that the model learned (the release's is over
    those of the present block).

    Args:
        old: the teacher's past.
        weight: weight of the four losses.
        personal: personal weights; they belong to the teacher and outlive the stage.
        cluster_weight: weight of the cluster loss.
        temperature: of the contrastive softmax.
        sample: old entities drawn for each step, from which the softmaxes' denominators are estimated without bias
            (:func:`ccd_lightning.functional.sampled_neighbour_loss`); ``None`` sums over all of them.
        seed: seed of that draw and of the first clusters.
    """

    name = "graph_distillation"

    def __init__(
        self,
        old: OldKnowledge,
        weight: float = 0.01,
        personal: PersonalWeights | None = None,
        cluster_weight: float = 1.0,
        temperature: float = 5.0,
        sample: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.old, self.scale, self.personal = old, weight, personal
        self.cluster_weight, self.temperature, self.sample = cluster_weight, temperature, sample
        self._generator = seeded_generator(seed, "graph distillation")
        self._rated_by = old.ratings.transpose()
        self._active_users = old.ratings.counts.nonzero().squeeze(-1)
        self._active_items = self._rated_by.counts.nonzero().squeeze(-1)

    def prepare(self, backbone: Backbone) -> None:
        """Begin the clusters among the item embeddings; move the past to where the model lives."""
        device = next(backbone.parameters()).device
        for name in ("_rated_by", "_active_users", "_active_items"):
            setattr(self, name, getattr(self, name).to(device))
        old = self.old
        self.old = replace(
            old,
            ratings=old.ratings.to(device),
            user_graph=old.user_graph.to(device),
            item_graph=old.item_graph.to(device),
        )
        if self.personal is not None:
            self.personal.requires_grad_(True).begin(self.old.final[1], self._generator)

    def batches(self, batch_size: int, generator: torch.Generator) -> None:
        """None of its own; an epoch's draws of candidates depend on the epoch alone."""
        self._generator = generator

    def finish(self, backbone: Backbone) -> None:
        """Personal weights rest outside the stages that use them."""
        if self.personal is not None:
            self.personal.requires_grad_(False)

    def forward(self, backbone: Backbone, batch: RankingBatch) -> Tensor:
        """Weighted sum of the four losses and the cluster loss."""
        users = batch.users[F.places(self._active_users, batch.users)[1]]
        items = batch.positives[F.places(self._active_items, batch.positives)[1]]
        final = cast(tuple[Tensor, Tensor], backbone.embeddings())
        present = F.gather_rows(final[0], users)
        user_weights = self._personal_weights(F.gather_rows(self.old.final[0], users), present) / _global_count(users)
        item_weights = (1 / _global_count(items)).expand(items.numel())
        by_user, by_item = _distinct(users, user_weights), _distinct(items, item_weights)
        user_pool, item_pool = self._pool(self._active_users), self._pool(self._active_items)
        total = user_weights.new_zeros(())
        layers = backbone.layers()
        for (old_user, old_item), (user, item) in zip(self.old.layers, layers, strict=True):
            for target, neighbours, pool, pairs, weighted in (
                (old_user, item, item_pool, self.old.ratings, by_user),
                (old_item, user, user_pool, self._rated_by, by_item),
                (old_user, user, user_pool, self.old.user_graph, by_user),
                (old_item, item, item_pool, self.old.item_graph, by_item),
            ):
                total = total + self._contrast(target, neighbours, pool, pairs, weighted)
        total = self.scale * total / len(layers)
        if self.personal is not None:
            total = total + self.cluster_weight * self._cluster_loss(final[1]) / world_size()
        return total

    def _contrast(
        self, target: Tensor, neighbours: Tensor, pool: _Pool, pairs: PairSet, weighted: tuple[Tensor, Tensor]
    ) -> Tensor:
        """One of the losses on one layer: old rows against the present rows of the other, or the same, kind."""
        rows, weights = weighted
        positions, columns = pairs.of(rows)
        old = F.gather_rows(target, rows)
        if pool.population > pool.members.numel():
            return F.sampled_neighbour_loss(
                old, neighbours, positions, columns, weights, self.temperature, pool.members, pool.population
            )
        slots, inside = F.places(pool.members, columns)
        candidates = F.gather_rows(neighbours, pool.members)
        return F.neighbour_loss(old, candidates, positions[inside], slots[inside], weights, self.temperature)

    def _pool(self, active: Tensor) -> _Pool:
        """Candidates of the softmax: all the active old entities, or a fresh draw of them in ascending order."""
        if self.sample is None or self.sample >= active.numel():
            return _Pool(active, active.numel())
        drawn = torch.randperm(active.numel(), generator=self._generator)[: self.sample].to(active.device)
        return _Pool(active[drawn.sort().values], active.numel())

    def _personal_weights(self, before: Tensor, present: Tensor) -> Tensor:
        """Weights scaled to a mean of 1 over the global batch, float ``(B,)``."""
        if self.personal is None:
            return present.new_ones(present.shape[0])
        # A process without rows takes part too, since all the processes add up their sums.
        raw = self.personal.raw(before, present)
        return raw / (global_sum(raw.sum()) + 1e-8) * _global_count(before)

    def _cluster_loss(self, items: Tensor) -> Tensor:
        assert self.personal is not None
        present = F.gather_rows(items.detach(), self._active_items)
        return F.cluster_loss(present, self.personal.clusters, max(present.shape[0] - 1, 1))


class _Pool(NamedTuple):
    """Members of a softmax in ascending order, int64 ``(m,)``, and how many they were drawn from."""

    members: Tensor
    population: int


def _distinct(rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Each row of a batch once, with the sum of its weights: their losses differ in nothing else."""
    distinct, places = torch.unique(rows, return_inverse=True)
    return distinct, weights.new_zeros(distinct.numel()).index_add(0, places, weights)


def _global_count(rows: Tensor) -> Tensor:
    """Rows over all the processes, at least 1."""
    return global_sum(torch.tensor(float(rows.shape[0]), device=rows.device)).clamp_min(1.0)
