"""What the contract of a backbone is run on: a tiny stream, and a few looks at a model."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor

from ccd_lightning.backbones import Backbone, evaluating
from ccd_lightning.data.history import History
from ccd_lightning.types import Block, Interactions, RankingBatch, UserBatch

SIZES = ((12, 10), (16, 13))
"""Users and items known after each of the two blocks."""


class BackboneContractError(AssertionError):
    """A backbone breaks a point of the contract; the message names the point, what was found and how to mend it."""


def require(fulfilled: bool, point: str, found: str, mend: str) -> None:
    """Raise a :class:`BackboneContractError` unless a point is fulfilled."""
    if not fulfilled:
        raise BackboneContractError(f"{point}: {found}. {mend}")


def history(last: int) -> History:
    """Blocks 0, ..., ``last``: even users take even items, odd users odd ones, and the first items most of all."""
    return History(tuple(_block(index) for index in range(last + 1)))


def _block(index: int) -> Block:
    users, items = SIZES[index]
    old_users, old_items = SIZES[index - 1] if index else (0, 0)
    grid = torch.cartesian_prod(torch.arange(users), torch.arange(items))
    new = (grid[:, 0] >= old_users) | (grid[:, 1] >= old_items)
    popular = (grid[:, 1] < items // 2) | (grid[:, 0] % 3 == 0)
    pairs = grid[(grid.sum(1) % 2 == 0) & popular & new]
    none = Interactions.empty()
    return Block(index, users, items, old_users, old_items, Interactions(pairs[:, 0], pairs[:, 1]), none, none)


def met(factory: Callable[[], Backbone], last: int = 0) -> Backbone:
    """A new backbone that has met the blocks up to ``last``."""
    model = factory()
    for index in range(last + 1):
        model.meet(history(index), "neighbours", 3, torch.Generator().manual_seed(index))
    return model


def batch_of(model: Backbone) -> RankingBatch | UserBatch:
    """All of block 0 as one batch of the model's kind; its negatives are of the other parity."""
    users, items = history(0).block.train
    if model.batch_type is UserBatch:
        return UserBatch(torch.unique(users), torch.unique(users).numel())
    negatives = (items + 1) % SIZES[0][1]
    return RankingBatch(users, items, negatives[:, None], users.numel())


def step(model: Backbone) -> float:
    """One training step on block 0, and its loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02, fused=True)
    with model.shared():
        loss = model.loss(batch_of(model))
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    model.zero_grad()
    return float(loss.detach())


def rows_of(batch: RankingBatch | UserBatch, rows: slice) -> RankingBatch | UserBatch:
    """One process's part of a batch."""
    if isinstance(batch, UserBatch):
        return UserBatch(batch.users[rows], batch.global_size)
    return RankingBatch(batch.users[rows], batch.positives[rows], batch.negatives[rows], batch.global_size)


def scored(model: Backbone, users: Tensor | None = None) -> Tensor:
    """Scores as an evaluation takes them, of all the users by default."""
    with evaluating(model), torch.inference_mode():
        return model.scores(torch.arange(model.num_users) if users is None else users).clone()


def lead(model: Backbone) -> float:
    """How much higher the items of block 0 that a user took score than the others, on average."""
    scores, (users, items) = scored(model), history(0).block.train
    observed = torch.zeros_like(scores, dtype=torch.bool)
    observed[users, items] = True
    return float(scores[observed].mean() - scores[~observed].mean())


def tensors_of(model: Backbone) -> dict[str, Tensor]:
    """A copy of the tensors that a checkpoint holds."""
    return {name: deepcopy(value) for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def sizes_of(model: Backbone) -> tuple[int, int, int]:
    """Users and items that the model knows, and the last block that it met."""
    return model.num_users, model.num_items, model.known_block


def close(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are equal up to rounding."""
    return first.shape == second.shape and torch.allclose(first, second, rtol=1e-4, atol=1e-5)
