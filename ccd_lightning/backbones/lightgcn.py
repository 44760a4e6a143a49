"""Light graph convolution over the bipartite graph of users and items."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from ccd_lightning import functional as F
from ccd_lightning.backbones.base import EmbeddingBackbone
from ccd_lightning.checks import require_number, require_word
from ccd_lightning.data.history import History

GraphMode = Literal["block", "cumulative", "fold"]


class _Graph:
    """A normalised adjacency that copies of a model share: it never changes, a new block brings a new one."""

    def __init__(self, adjacency: Tensor) -> None:
        self.adjacency = adjacency

    def __deepcopy__(self, memo: dict[int, object]) -> _Graph:
        return self

    def like(self, rows: Tensor) -> Tensor:
        """Where the rows are, and in double precision if they are; there are no sparse products of less than float32."""
        dtype = torch.promote_types(rows.dtype, torch.float32)
        if (self.adjacency.device, self.adjacency.dtype) != (rows.device, dtype):
            self.adjacency = self.adjacency.to(device=rows.device, dtype=dtype)
        return self.adjacency


class LightGCN(EmbeddingBackbone):
    """LightGCN (He et al., SIGIR 2020): final embeddings are the mean of layers 0..L, the loss is BPR.

    Args:
        dim: dimensions of an embedding.
        num_layers: L, propagations over the graph.
        graph: whose train edges make the graph: ``block`` takes those of the present block only (the paper's release),
            which makes a trained model forget at once; ``cumulative`` those of all the blocks so far; ``fold`` those of
            the present block, over the final embeddings of the old graph as new layer 0.
        edge_decay: weight of an edge for each block of its age, in (0, 1]; an edge of D_j weighs ``edge_decay ** (k - j)``
            in the ``cumulative`` graph of D_k. Near 0 the graph is that of the present block, but for entities that do not
            occur in it: they keep the edges they had.
        deployed_decay: ``edge_decay`` of a cumulative graph over which a student that learns over ``block`` graphs is deployed
            when it has been distilled, so that it does not lose sight of the old edges; ``None`` deploys it over the graph that
            it learned over. Whatever is learned stays the same.
    """

    def __init__(
        self,
        dim: int = 64,
        num_layers: int = 2,
        graph: GraphMode = "cumulative",
        edge_decay: float = 1.0,
        deployed_decay: float | None = None,
    ) -> None:
        super().__init__(dim)
        if num_layers < 0:
            raise ValueError(f"`num_layers` is {num_layers}, but must be 0 or more: pass the number of propagations.")
        require_word("graph", graph, GraphMode)
        require_number("edge_decay", edge_decay, above=0, most=1)
        if edge_decay != 1 and graph != "cumulative":
            raise ValueError(
                f"`edge_decay` is {edge_decay}, but the edges of a `{graph}` graph are all of one age: set `graph: cumulative`."
            )
        if deployed_decay is not None:
            require_number("deployed_decay", deployed_decay, above=0, most=1)
            if graph != "block":
                raise ValueError(
                    f"`deployed_decay` is {deployed_decay}, but it is for a model that learns over block graphs, and `graph` is"
                    f" `{graph}`: set `graph: block`, or leave it out."
                )
        self.num_layers = num_layers
        self.graph = graph
        self.edge_decay = edge_decay
        self.deployed_decay = deployed_decay
        self._graph: _Graph | None = None
        self._deployed_graph: _Graph | None = None
        self._is_settled = False
        self._shared: list[Tensor] | None = None
        self._sharing = False
        self._frozen: tuple[tuple[int, ...], list[Tensor]] | None = None

    def before_growth(self, history: History) -> None:
        """Fold the old graph into layer 0, where that is asked."""
        if self.graph == "fold" and self._graph is not None:
            with torch.no_grad():
                user, item = self.embeddings()
                self.user_embedding.copy_(user)
                self.item_embedding.copy_(item)

    def reset(self, generator: torch.Generator) -> None:
        """Forget everything, the graph too."""
        super().reset(generator)
        self._graph, self._deployed_graph, self._frozen = None, None, None

    def observe(self, history: History) -> None:
        """Build the graphs over the users and items known after the present block."""
        self._graph = _graph_of(history, self.graph == "cumulative", self.edge_decay)
        self._deployed_graph = self._graph
        if self.deployed_decay is not None and len(history.blocks) > 1:
            self._deployed_graph = _graph_of(history, True, self.deployed_decay)
        self.settle(False)

    def settle(self, is_deployed: bool) -> None:
        """Propagate over the graph of the deployed model, or over the one that is learned over."""
        self._is_settled, self._frozen = is_deployed, None

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Propagate once within the context, a training step: what was computed without gradients is outdated by it."""
        self._sharing, self._frozen = True, None
        try:
            yield
        finally:
            self._sharing, self._shared, self._frozen = False, None, None

    def embeddings(self, propagated: bool = True) -> tuple[Tensor, Tensor]:
        """Final embeddings, or layer 0 if not ``propagated``: users ``(U, d)``, items ``(I, d)``."""
        if not propagated:
            return self.user_embedding, self.item_embedding
        user, item, *_ = self._propagation()
        return user, item

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Embeddings of layers 0..L."""
        after = [(rows[: self.num_users], rows[self.num_users :]) for rows in self._propagation()[2:]]
        return [(self.user_embedding, self.item_embedding), *after]

    def __getstate__(self) -> dict[str, Any]:
        """A copy computes its own propagation."""
        return {**self.__dict__, "_frozen": None, "_shared": None}

    def _propagation(self) -> list[Tensor]:
        """Final users and items and layers 1..L, once a step or, without gradients, once a state of the parameters."""
        if torch.is_grad_enabled():
            # A fused optimizer changes parameters without counting up their version.
            self._frozen = None
            if not self._sharing:
                return self._propagate()
            if self._shared is None:
                self._shared = self._propagate()
            return self._shared
        tables = (self.user_embedding, self.item_embedding)
        state = tuple(number for table in tables for number in (table._version, table.data_ptr(), table.shape[0]))
        if self._frozen is None or self._frozen[0] != state:
            self._frozen = (state, self._propagate())
        return self._frozen[1]

    def _propagate(self) -> list[Tensor]:
        user, item = self.user_embedding, self.item_embedding
        graph = self._deployed_graph if self._is_settled else self._graph
        if graph is None:
            return [user, item]
        return F.lightgcn_propagation(graph.like(user), user, item, self.num_layers)


def _graph_of(history: History, is_cumulative: bool, decay: float) -> _Graph:
    """The graph of the present block, or of all blocks with edges that fade by their age."""
    edges = history.train("cumulative" if is_cumulative else "block")
    weights = None
    if decay < 1:
        ages = [torch.full((block.train.size,), history.block.index - block.index) for block in history.blocks]
        weights = decay ** torch.cat(ages).double()
    sizes = (history.block.num_users, history.block.num_items)
    return _Graph(F.normalised_adjacency(edges.users, edges.items, *sizes, weights))
