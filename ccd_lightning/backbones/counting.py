"""Recommenders that count in place of learning: floors that anything learned has to beat."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from typing_extensions import override

from ccd_lightning.backbones.base import Backbone
from ccd_lightning.checks import require_whole, require_word
from ccd_lightning.data.history import History, Span
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.types import Interactions, RankingBatch, chunks


class CountingBackbone(Backbone):
    """A recommender without parameters: all it knows is counted from the train interactions when it meets a block.

    Stages in which it is to learn end as soon as it has met the block.

    Args:
        history: which interactions are counted: of the present block, or of all the blocks so far.
    """

    def __init__(self, history: Span = "cumulative") -> None:
        super().__init__()
        require_word("history", history, Span)
        self.history = history

    @override
    def loss(self, batch: RankingBatch) -> Tensor:
        """Nothing is to be minimised."""
        return torch.zeros((), device=batch.users.device)


class Popularity(CountingBackbone):
    """The same ranking for everybody: items by their number of train interactions.

    Args:
        history: which interactions are counted: of the present block, or of all the blocks so far.
    """

    def __init__(self, history: Span = "cumulative") -> None:
        super().__init__(history)
        self._counts = torch.zeros(0)

    @override
    def observe(self, history: History) -> None:
        items = history.observed(self.history).columns
        self._counts = torch.bincount(items, minlength=self.num_items).float()

    @override
    def scores(self, users: Tensor) -> Tensor:
        """Counts, float ``(B, I)``."""
        self._counts = self._counts.to(users.device)
        return self._counts.repeat(users.numel(), 1)


class ItemKNN(CountingBackbone):
    """Item-based nearest neighbours (Sarwar et al., WWW 2001): a user's items vote for the items most like them.

    score(u, i) = sum of cos(i, j) over the user's items j that have i among their nearest neighbours; the cosine is that of
    the items' 0/1 columns of users.

    Args:
        neighbours: most similar items kept for each item.
        history: which interactions are counted: of the present block, or of all the blocks so far.
        chunk: items compared with all the others at a time.
    """

    def __init__(self, neighbours: int = 100, history: Span = "cumulative", chunk: int = 1024) -> None:
        super().__init__(history)
        require_whole("neighbours", neighbours, 1)
        require_whole("chunk", chunk, 1)
        self.neighbours, self.chunk = neighbours, chunk
        self._rows = PairSet(*Interactions.empty(), 0, 0)
        self._nearest = (torch.zeros(0, 1, dtype=torch.long), torch.zeros(0, 1))

    @override
    def observe(self, history: History) -> None:
        self._rows = history.observed(self.history)
        self._nearest = nearest_items(self._rows, min(self.neighbours, max(self.num_items - 1, 1)), self.chunk)

    @override
    def scores(self, users: Tensor) -> Tensor:
        """Sums of cosines, float ``(B, I)``."""
        self._rows = self._rows.to(users.device)
        items, cosines = self._nearest = (self._nearest[0].to(users.device), self._nearest[1].to(users.device))
        positions, own = self._rows.of(users)
        votes = torch.zeros(users.numel() * self.num_items, device=users.device)
        places = positions[:, None] * self.num_items + items[own]
        return votes.index_add_(0, places.flatten(), cosines[own].flatten()).view(users.numel(), self.num_items)


def nearest_items(observed: PairSet, number: int, chunk: int = 1024) -> tuple[Tensor, Tensor]:
    """The items most like each item by the cosine of their 0/1 columns of users.

    Args:
        observed: (user, item) pairs.
        number: K.
        chunk: items compared with all the others at a time, so that no square of the catalogue is kept.

    Returns:
        items, most similar first, int64 ``(I, K)``; their cosines, float ``(I, K)``, 0 where there are fewer neighbours.
    """
    shape = (observed.num_rows, observed.num_columns)
    pairs = (observed.rows.cpu().numpy(), observed.columns.cpu().numpy())
    norms = np.sqrt(np.maximum(np.bincount(pairs[1], minlength=shape[1]), 1))
    ratings = sparse.csr_array((1.0 / norms[pairs[1]], pairs), shape=shape)
    columns = ratings.T.tocsr()
    items = np.zeros((shape[1], number), dtype=np.int64)
    cosines = np.zeros((shape[1], number), dtype=np.float32)
    for part in chunks(shape[1], chunk):
        alike = (columns[part] @ ratings).tocsr()
        for row in range(alike.shape[0]):
            own = slice(alike.indptr[row], alike.indptr[row + 1])
            others = alike.indices[own] != part.start + row
            found, values = alike.indices[own][others], alike.data[own][others]
            # Equal cosines go by the item's number, whatever order the product has.
            best = np.lexsort((found, -values))[:number]
            items[part.start + row, : best.size], cosines[part.start + row, : best.size] = found[best], values[best]
    return torch.from_numpy(items), torch.from_numpy(cosines)
