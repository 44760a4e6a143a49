"""Small streams and models that tests build by hand."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ccd_lightning.backbones import BPRMF
from ccd_lightning.data.history import History
from ccd_lightning.types import Block, Interactions

Pairs = Iterable[tuple[int, int]]


def interactions(pairs: Pairs) -> Interactions:
    table = torch.tensor(list(pairs), dtype=torch.long).reshape(-1, 2)
    return Interactions(table[:, 0].clone(), table[:, 1].clone())


def block(
    index: int, sizes: tuple[int, int], old: tuple[int, int], train: Pairs, valid: Pairs = (), test: Pairs = ()
) -> Block:
    return Block(index, *sizes, *old, interactions(train), interactions(valid), interactions(test))


def random_pairs(sizes: tuple[int, int], number: int, seed: int) -> list[tuple[int, int]]:
    """Distinct pairs in random order."""
    cells = torch.randperm(sizes[0] * sizes[1], generator=torch.Generator().manual_seed(seed))[:number].tolist()
    return [divmod(cell, sizes[1]) for cell in cells]


def random_history(sizes: list[tuple[int, int]], share: float = 0.3, seed: int = 0) -> History:
    """Blocks of the given numbers of users and items, with train pairs alone."""
    blocks = []
    for index, size in enumerate(sizes):
        pairs = random_pairs(size, int(size[0] * size[1] * share), seed + index)
        blocks.append(block(index, size, sizes[index - 1] if index else (0, 0), pairs))
    return History(tuple(blocks))


def factorisation(user: Tensor, item: Tensor) -> BPRMF:
    """A matrix factorisation with the given embeddings."""
    model = BPRMF(user.shape[1])
    model.grow(len(user), len(item), torch.Generator())
    with torch.no_grad():
        model.user_embedding.copy_(user)
        model.item_embedding.copy_(item)
    return model


class Scores:
    """A scorer that reads its scores off a matrix."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    @property
    def num_users(self) -> int:
        return self.matrix.shape[0]

    @property
    def num_items(self) -> int:
        return self.matrix.shape[1]

    def scores(self, users: Tensor) -> Tensor:
        return self.matrix[users]
