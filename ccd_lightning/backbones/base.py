"""The contract between a recommender and the stream: learn, score, grow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ccd_lightning import functional as F
from ccd_lightning.data.history import History
from ccd_lightning.types import RankingBatch, Side, UserBatch

NewRows = Literal["neighbours", "one_hop", "random"]
"""How rows of new entities begin: from one-hop and two-hop neighbours, from one-hop alone (at 0 without any), or at random."""

INITIAL_SCALE = 0.01
"""Standard deviation of new rows drawn at random (paper's release; He et al., SIGIR 2020, section 4.1.2, take 0.1)."""


@contextmanager
def evaluating(*models: object) -> Iterator[None]:
    """Evaluation mode within the context for those that are modules; afterwards each part is in the mode it was in."""
    modules = [model for model in models if isinstance(model, nn.Module)]
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


class Backbone(nn.Module, ABC):
    """A recommender that can take in new users and items.

    A subclass registers its tables with :meth:`add_rows` and defines :meth:`loss` and :meth:`scores`; growth,
    initialisation of new entities, proxies and checkpoints then work without further code. A new backbone knows nobody:
    it grows from 0 users and 0 items.
    """

    batch_type: type[RankingBatch] | type[UserBatch] = RankingBatch
    """The batches that :meth:`loss` takes."""

    row_by_row: bool = False
    """Whether the model uses its tables through :func:`~ccd_lightning.functional.gather_rows`,
    :func:`~ccd_lightning.functional.listed_products` and :func:`~ccd_lightning.functional.products` alone, so that their
    rows can be dealt out to processes."""

    def __init__(self) -> None:
        super().__init__()
        self.num_users = 0
        self.num_items = 0
        self.known_block = self.known_before = -1
        self._sides: dict[str, Side] = {}
        self._counterparts: dict[str, str] = {}
        self.register_load_state_dict_pre_hook(_fit_sizes)  # type: ignore[no-untyped-call]

    def add_rows(self, name: str, side: Side, *shape: int, counterpart: str | None = None) -> None:
        """Register a table with one row a user or an item, as the parameter ``name`` of shape ``(0, *shape)``.

        Args:
            name: attribute name.
            side: whether rows are users or items.
            shape: shape of a row.
            counterpart: table of the other side in the same space, if there is one; the mean of its rows over a new
                entity's interactions is the one-hop half of the new entity's first row.
        """
        self.register_parameter(name, nn.Parameter(torch.empty(0, *shape)))
        self._sides[name] = side
        if counterpart is not None:
            self._counterparts[name] = counterpart

    def tables(self) -> list[str]:
        """Names of the tables with one row a user or an item."""
        return list(self._sides)

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """The model's own loss on a batch of :attr:`batch_type`, a scalar: the process's part of a sum or mean."""

    @abstractmethod
    def scores(self, users: Tensor) -> Tensor:
        """Scores of all known items.

        Args:
            users: int64 ``(B,)``.

        Returns:
            float ``(B, I)``, higher is better.
        """

    def pair_scores(self, users: Tensor, items: Tensor) -> Tensor:
        """Scores of single pairs, float ``(B,)``; models with a cheaper way than a full row override this.

        Args:
            users: int64 ``(B,)``.
            items: int64 ``(B,)``.
        """
        present, rows = torch.unique(users, return_inverse=True)
        return self.scores(present)[rows, items]

    def embeddings(self, propagated: bool = True) -> tuple[Tensor, Tensor] | None:
        """User ``(U, d)`` and item ``(I, d)`` embeddings whose products are the scores; ``None`` if there are none.

        Args:
            propagated: final embeddings of a graph model; its own rows (layer 0) if false.
        """
        return None

    def factors(self) -> tuple[Tensor, Tensor, Tensor | None] | None:
        """What an export holds: user rows ``(U, d)``, item rows ``(I, d)``, offsets ``(I,)``; scores = users @ items.T + offsets.

        ``None`` if there are no such tables; then an export traces :meth:`scores`.
        """
        found = self.embeddings()
        return None if found is None else (*found, None)

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """User and item embeddings of each layer, for distillation by layers; empty for models without embeddings."""
        found = self.embeddings()
        return [] if found is None else [found]

    def observe(self, history: History) -> None:
        """See the data so far: renew a graph or the input rows. Called whenever a block begins and after loading."""

    def settle(self, is_deployed: bool) -> None:
        """Stand as it is deployed, when it has been distilled, or else as it learns; most models do not tell these apart."""

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Within one training step, compute what several objectives need (a propagation) only once."""
        yield

    def grow(self, num_users: int, num_items: int, generator: torch.Generator) -> None:
        """Append rows for new users and items, drawn from N(0, 0.01^2); old rows stay as they are.

        Args:
            num_users: users known from now on.
            num_items: items known from now on.
            generator: CPU generator.

        Raises:
            ValueError: if the model knows more already.
        """
        if num_users < self.num_users or num_items < self.num_items:
            raise ValueError(
                f"The model knows {self.num_users} users and {self.num_items} items and cannot shrink to {num_users}"
                f" users and {num_items} items: pass the data that it was trained on, or start with a new model."
            )
        for name, side in self._sides.items():
            old: nn.Parameter = getattr(self, name)
            count = (num_users if side is Side.USER else num_items) - old.shape[0]
            new = torch.randn(count, *old.shape[1:], generator=generator) * INITIAL_SCALE
            self.replace_table(name, torch.cat([old.detach(), new.to(old)]))
        self.num_users, self.num_items = num_users, num_items

    def meet(self, history: History, new_rows: NewRows, topk: int, generator: torch.Generator) -> None:
        """Grow to the present block, begin the new rows from their neighbours, and observe the block.

        Args:
            history: the blocks so far, the present one last.
            new_rows: how new rows begin.
            topk: two-hop neighbours of a new entity.
            generator: CPU generator for what is random.
        """
        if history.block.index == self.known_block:
            return
        self.before_growth(history)
        old = {Side.USER: self.num_users, Side.ITEM: self.num_items}
        self.grow(history.block.num_users, history.block.num_items, generator)
        if new_rows != "random" and min(old.values()) > 0:
            self._begin_from_neighbours(history.since(self.known_block), old, topk, one_hop_only=new_rows == "one_hop")
        self.observe(history.since(self.known_block))
        self.known_before, self.known_block = self.known_block, history.block.index

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Forget everything: no users, no items, fresh shared weights.

        Args:
            generator: CPU generator; matrices are drawn from N(0, 1 / fan-in), vectors start at 0.
        """
        for name, parameter in list(self.named_parameters()):
            if name in self._sides:
                self.replace_table(name, parameter.detach()[:0])
            elif parameter.dim() > 1:
                drawn = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
                parameter.copy_(drawn)
            else:
                parameter.zero_()
        for buffer in self.buffers():
            buffer.zero_()
        self.num_users, self.num_items, self.known_block, self.known_before = 0, 0, -1, -1

    @torch.no_grad()
    def merge_from(self, previous: Backbone, momentum: float) -> None:
        """Become ``momentum * previous + (1 - momentum) * self``; rows that ``previous`` lacks stay.

        Args:
            previous: an older model of the same kind.
            momentum: weight of the older one, in [0, 1] (paper, proxies).
        """
        older = dict(previous.named_parameters())
        for name, parameter in self.named_parameters():
            parameter.copy_(F.merge_proxy(older[name].to(parameter), parameter, momentum))

    def before_growth(self, history: History) -> None:
        """A last change of the old rows before new ones are appended."""

    @torch.no_grad()
    def _begin_from_neighbours(self, history: History, old: dict[Side, int], topk: int, one_hop_only: bool) -> None:
        pairs = history.observed("block")
        values = torch.ones(pairs.size)
        by_user = torch.sparse_coo_tensor(
            torch.stack([pairs.rows, pairs.columns]),
            values,
            (pairs.num_rows, pairs.num_columns),
            is_coalesced=True,
            check_invariants=False,
        )
        before = {name: getattr(self, name).detach().cpu()[: old[side]] for name, side in self._sides.items()}
        for name, side in self._sides.items():
            table: nn.Parameter = getattr(self, name)
            if table.shape[0] == old[side]:
                continue
            own = before[name].reshape(old[side], -1)
            other = before[self._counterparts[name]] if name in self._counterparts else None
            interactions = by_user if side is Side.USER else by_user.t().coalesce()
            new, one_hop, _ = F.init_new_rows(interactions, own, other, topk)
            start = one_hop if one_hop_only and other is not None else new
            table[old[side] :] = start.view(-1, *table.shape[1:]).to(table)

    def replace_table(self, name: str, rows: Tensor) -> None:
        """Put rows in the place of a table's, as a parameter that learns if the old one did."""
        setattr(self, name, nn.Parameter(rows, requires_grad=getattr(self, name).requires_grad))

    def get_extra_state(self) -> Tensor:
        """Sizes, the last block met and the one before, so that a checkpoint restores itself into an empty model."""
        return torch.tensor([self.num_users, self.num_items, self.known_block, self.known_before])

    def set_extra_state(self, state: Tensor) -> None:
        """Restore :meth:`get_extra_state`."""
        # Files of earlier releases do not tell the block before.
        self.num_users, self.num_items, self.known_block, *before = state.tolist()
        self.known_before = before[0] if before else self.known_block - 1


def _fit_sizes(backbone: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give the tables the sizes that the checkpoint has."""
    assert isinstance(backbone, Backbone)
    for name in backbone._sides:
        saved = state.get(prefix + name)
        present: nn.Parameter = getattr(backbone, name)
        if saved is not None and saved.shape[0] != present.shape[0] and saved.shape[1:] == present.shape[1:]:
            backbone.replace_table(name, torch.empty_like(saved, dtype=present.dtype, device=present.device))


class EmbeddingBackbone(Backbone):
    """A backbone whose score is the inner product of a user's and an item's embedding.

    Args:
        dim: dimensions of an embedding.
    """

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"`dim` is {dim}, but an embedding needs at least 1 dimension: pass a positive number.")
        self.dim = dim
        self.user_embedding: nn.Parameter
        self.item_embedding: nn.Parameter
        self.add_rows("user_embedding", Side.USER, dim, counterpart="item_embedding")
        self.add_rows("item_embedding", Side.ITEM, dim, counterpart="user_embedding")

    def embeddings(self, propagated: bool = True) -> tuple[Tensor, Tensor]:
        """User ``(U, d)`` and item ``(I, d)`` embeddings."""
        return self.user_embedding, self.item_embedding

    def scores(self, users: Tensor) -> Tensor:
        """Inner products with all the items, float ``(B, I)``."""
        user, item = self.embeddings()
        return F.products(F.gather_rows(user, users), item)

    def pair_scores(self, users: Tensor, items: Tensor) -> Tensor:
        """Inner products of single pairs, float ``(B,)``."""
        user, item = self.embeddings()
        return (F.gather_rows(user, users) * F.gather_rows(item, items)).sum(-1)

    def loss(self, batch: RankingBatch) -> Tensor:
        """Bayesian personalised ranking (Rendle et al., UAI 2009), summed over the batch."""
        user, item = self.embeddings()
        # One gathering: the gradient of each is a table of all the items.
        listed = torch.cat([batch.positives.unsqueeze(1), batch.negatives], dim=1)
        scores = F.listed_products(F.gather_rows(user, batch.users), item, listed)
        return F.bpr_loss(scores[:, 0], scores[:, 1:])
