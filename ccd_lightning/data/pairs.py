"""Sets of (row, column) pairs: observed interactions, exclusion lists, masks. Memory grows with the pairs alone."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ccd_lightning.types import Interactions, chunks

# Draws made at a time: few enough for the memory that they need on the way to be used again, and so many that their searches in
# order lie close together.
_CHUNK_DRAWS = 2**21


class PairSet:
    """A set of pairs grouped by row, as in a compressed sparse row matrix; repeated pairs count once.

    Args:
        rows: int64 ``(n,)``.
        columns: int64 ``(n,)``.
        num_rows: rows of the set, more than any of ``rows``.
        num_columns: columns of the set, more than any of ``columns``.

    Raises:
        ValueError: if a pair lies outside the set's shape.
    """

    def __init__(self, rows: Tensor, columns: Tensor, num_rows: int, num_columns: int) -> None:
        _check_ids("row", rows, num_rows)
        _check_ids("column", columns, num_columns)
        self.num_rows, self.num_columns = num_rows, num_columns
        self._keys = _distinct_((rows * num_columns).add_(columns))

    @classmethod
    def _of_keys(cls, keys: Tensor, num_rows: int, num_columns: int) -> PairSet:
        """The set of the pairs with the ascending numbers ``row * num_columns + column``."""
        found = object.__new__(cls)
        found.num_rows, found.num_columns, found._keys = num_rows, num_columns, keys
        return found

    def __deepcopy__(self, memo: dict[int, object]) -> PairSet:
        """The set itself: it never changes, so copies of a model may share it."""
        return self

    @classmethod
    def from_interactions(cls, interactions: Interactions, num_users: int, num_items: int) -> PairSet:
        """Users are rows, items are columns."""
        return cls(interactions.users, interactions.items, num_users, num_items)

    @property
    def size(self) -> int:
        """Number of pairs."""
        return self._keys.numel()

    @cached_property
    def columns(self) -> Tensor:
        """The column of each pair, int64 ``(size,)``, ascending within a row."""
        return self._keys % self.num_columns if self.num_columns else self._keys

    @cached_property
    def offsets(self) -> Tensor:
        """Where the pairs of each row begin, and behind the last row where they end, int64 ``(num_rows + 1,)``."""
        return torch.searchsorted(
            self._keys, torch.arange(self.num_rows + 1, device=self._keys.device) * self.num_columns
        )

    @property
    def counts(self) -> Tensor:
        """Pairs of each row, int64 ``(num_rows,)``."""
        return self.offsets.diff()

    @property
    def rows(self) -> Tensor:
        """The row of each pair, int64 ``(size,)``, ascending."""
        return torch.repeat_interleave(torch.arange(self.num_rows, device=self.offsets.device), self.counts)

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The pairs of a batch of rows; rows beyond the set have none.

        Args:
            rows: int64 ``(B,)``.

        Returns:
            positions in the batch and columns, both int64 ``(P,)``.

        >>> PairSet(torch.tensor([0, 2, 2]), torch.tensor([1, 0, 1]), 3, 2).of(torch.tensor([2, 0]))
        (tensor([0, 0, 1]), tensor([0, 1, 1]))
        """
        starts, counts = self._spans(rows)
        positions = torch.repeat_interleave(counts)
        shifts = starts - counts.cumsum(0) + counts
        index = torch.arange(positions.numel(), device=rows.device) + shifts.index_select(0, positions)
        return positions, self.columns.index_select(0, index)

    def among(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """The pairs of a batch of rows that fall into a sample of the columns; rows beyond the set have none.

        Args:
            rows: int64 ``(B,)``.
            columns: int64 ``(S,)``, no repeats.

        Returns:
            positions in the batch and in the sample, both int64 ``(P,)``, ascending by row.

        >>> PairSet(torch.tensor([0, 2, 2]), torch.tensor([1, 0, 1]), 3, 2).among(torch.tensor([2, 0]), torch.tensor([1]))
        (tensor([0, 1]), tensor([0, 0]))
        """
        if rows.device.type == "cpu" and self.size and rows.numel() and int(rows.amax()) < self.num_rows:
            # Faster than the general way, since the matrix's own loops write only what is found.
            part = self._matrix[rows.numpy()][:, columns.numpy()]
            owners = np.repeat(np.arange(len(rows)), np.diff(part.indptr))
            return torch.from_numpy(owners), torch.from_numpy(part.indices.astype(np.int64))
        positions, present = self.of(rows)
        slots = torch.full((self.num_columns,), -1, device=rows.device)
        slots[columns] = torch.arange(len(columns), device=rows.device)
        found = slots.index_select(0, present)
        inside = (found >= 0).nonzero().squeeze(-1)
        return positions.index_select(0, inside), found.index_select(0, inside)

    def contains(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Whether each pair is in the set, bool, of the shape of ``rows``."""
        if not self.size:
            return torch.zeros_like(rows, dtype=torch.bool)
        keys = rows * self.num_columns + columns
        at = torch.searchsorted(self._keys, keys).clamp_max(self.size - 1)
        found: Tensor = (self._keys[at] == keys) & (columns >= 0) & (columns < self.num_columns)
        return found

    def union(self, *others: PairSet) -> PairSet:
        """The pairs of all the sets; the largest shape wins."""
        sets = [self, *others]
        num_rows, num_columns = max(part.num_rows for part in sets), max(part.num_columns for part in sets)
        keys = torch.cat([part._keys_of(num_columns) for part in sets])
        return self._of_keys(_distinct_(keys), num_rows, num_columns)

    def _keys_of(self, num_columns: int) -> Tensor:
        """The numbers that the pairs would have in a set of so many columns."""
        return self._keys if num_columns == self.num_columns else (self.rows * num_columns).add_(self.columns)

    def transpose(self) -> PairSet:
        """The set with rows and columns exchanged."""
        return PairSet(self.columns, self.rows, self.num_columns, self.num_rows)

    def to(self, device: torch.device | str) -> PairSet:
        """The same set on another device."""
        if self._keys.device == torch.device(device):
            return self
        return self._of_keys(self._keys.to(device), self.num_rows, self.num_columns)

    def draw_outside(self, rows: Tensor, number: int, generator: torch.Generator) -> Tensor:
        """Draw columns uniformly from those that do not stand in the set beside their row, with replacement.

        The r-th free column of a row is r plus the number of taken columns f_j (ascending) with f_j - j <= r, so one
        binary search answers without any rejection. A row that has taken every column draws from all of them.

        Args:
            rows: int64 ``(B,)``; rows beyond the set have taken none.
            number: draws a row, N.
            generator: CPU generator.

        Returns:
            int64 ``(B, N)``.
        """
        drawn = torch.empty(rows.numel(), number, dtype=torch.long, device=rows.device)
        for part in chunks(rows.numel(), max(1, _CHUNK_DRAWS // max(1, number))):
            uniform = torch.rand(len(drawn[part]), number, generator=generator, dtype=torch.float64).to(rows.device)
            drawn[part] = self._free_columns(rows[part], uniform)
        return drawn

    @cached_property
    def _gap_keys(self) -> Tensor:
        """For the j-th pair of each row its number of free columns before it, as ``row * (num_columns + 1)`` and on, ascending."""
        rows = self.rows
        order = torch.arange(self.size, device=rows.device).sub_(self.offsets.index_select(0, rows))
        return (self._keys + rows).sub_(order)

    def _free_columns(self, rows: Tensor, uniform: Tensor) -> Tensor:
        """The free columns of each row that stand at shares of all its free ones, int64 ``(B, N)`` like ``uniform``."""
        starts, taken = self._spans(rows)
        full = taken >= self.num_columns
        free = torch.where(full, self.num_columns, self.num_columns - taken)
        draw = (uniform * free[:, None]).long().clamp_max(self.num_columns - 1)
        keys = (rows * (self.num_columns + 1))[:, None] + draw
        # In order, each search begins near the one before; to and fro in a large set, most of its steps miss the caches.
        ordered, places = _in_order(keys.flatten())
        if keys.device.type == "cpu":
            # Unlike torch, numpy goes on from where the search before has ended.
            found = torch.from_numpy(np.searchsorted(self._gap_keys.numpy(), ordered.numpy(), side="right"))
        else:
            found = torch.searchsorted(self._gap_keys, ordered, right=True)
        smaller = torch.empty_like(found).scatter_(0, places, found).view_as(keys) - starts[:, None]
        return torch.where(full[:, None], draw, draw + smaller)

    @cached_property
    def _matrix(self) -> Any:
        """The set as scipy's CSR."""
        ones = np.ones(self.size, dtype=np.bool_)
        index = np.int32 if max(self.size, self.num_rows, self.num_columns) < 2**31 else np.int64
        parts = (ones, self.columns.numpy().astype(index), self.offsets.numpy().astype(index))
        return sparse.csr_array(parts, shape=(self.num_rows, self.num_columns))

    def _spans(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """First place and number of each row's pairs, int64 ``(B,)`` both; rows beyond the set begin where it ends."""
        starts = self.offsets.index_select(0, rows.clamp_max(self.num_rows))
        return starts, self.offsets.index_select(0, (rows + 1).clamp_max(self.num_rows)) - starts


def _distinct_(keys: Tensor) -> Tensor:
    """The keys in ascending order, each once, int64; sorted where they are, by numpy, which is several times faster than torch."""
    distinct: Tensor
    if keys.device.type != "cpu":
        distinct = torch.unique(keys)
    else:
        keys.numpy().sort()
        distinct = torch.unique_consecutive(keys) if (keys[1:] == keys[:-1]).any() else keys
    return distinct


def _in_order(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers from 0 on in ascending order, and where each of them stood, both int64 ``(N,)``; the order of equal ones is open."""
    bits = keys.numel().bit_length()
    if keys.device.type != "cpu" or not keys.numel() or int(keys.amax()) >= 2 ** (63 - bits):
        ordered = keys.sort()
        return ordered.values, ordered.indices
    # Number and place as one, which numpy sorts in a third of the time that torch takes for both.
    packed = (keys << bits).add_(torch.arange(len(keys)))
    packed.numpy().sort()
    return packed >> bits, packed & (2**bits - 1)


def _check_ids(kind: str, ids: Tensor, count: int) -> None:
    if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= count):
        raise ValueError(
            f"Found {kind}s from {int(ids.min())} to {int(ids.max())} in a set of {count} {kind}s: leave padding out,"
            f" and size the set by all the {kind}s there are."
        )
