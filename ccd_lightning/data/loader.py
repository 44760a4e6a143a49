"""Loaders that yield whole typed batches: of training, and of full-ranking evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ccd_lightning.data.pairs import PairSet
from ccd_lightning.distributed import own_chunks, process_rank, world_size
from ccd_lightning.types import Batch, Block, BlockTargets, EvaluationBatch, Interactions, Split, chunks


@dataclass(frozen=True)
class BatchSet:
    """One epoch of batches of one kind, in the order in which they are learned.

    Args:
        build: makes a batch from the columns' rows and the number of rows of the global batch.
        columns: aligned tensors, rows on the first axis.
        batch_size: rows of a global batch, over all processes.
        owner: int64 ``(rows,)``; rows of equal owner go to the same process. ``None`` deals rows out in turn.
    """

    build: Callable[..., Batch]
    columns: tuple[Tensor, ...]
    batch_size: int
    owner: Tensor | None = None

    def __len__(self) -> int:
        return math.ceil(len(self.columns[0]) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for rows in chunks(len(self.columns[0]), self.batch_size):
            part = [column[rows] for column in self.columns]
            size = part[0].shape[0]
            if world_size() > 1:
                owner = torch.arange(size, device=part[0].device) if self.owner is None else self.owner[rows]
                mine = owner % world_size() == process_rank()
                part = [column[mine] for column in part]
            yield self.build(*part, size)

    def to(self, device: torch.device | str) -> BatchSet:
        """The same batches on another device: one copy an epoch in place of one a step."""
        owner = None if self.owner is None else self.owner.to(device)
        return BatchSet(self.build, tuple(column.to(device) for column in self.columns), self.batch_size, owner)


class StageLoader:
    """One epoch of a stage: the batches of each objective, one kind after the other.

    Args:
        sets: the batches, kind by kind.
    """

    def __init__(self, sets: list[BatchSet]) -> None:
        self.sets = sets

    def __len__(self) -> int:
        return sum(len(batches) for batches in self.sets)

    def __iter__(self) -> Iterator[Batch]:
        for batches in self.sets:
            yield from batches


class _BlockAnswers:
    """Ground truth and masks of one block, ready to be cut into batches of users."""

    def __init__(self, block: Block, split: Split) -> None:
        masked = [part for name, part in _splits(block) if name is not split]
        sizes = (block.num_users, block.num_items)
        self.block, self.split = block, split
        self.truth = PairSet.from_interactions(block.split(split), *sizes)
        self.masked = PairSet.from_interactions(Interactions.concatenate(masked), *sizes)
        self.users = self.truth.counts.nonzero().squeeze(-1)

    def targets(self, users: Tensor) -> BlockTargets:
        asked = torch.isin(users, self.users, assume_unique=True)
        positions = asked.nonzero().squeeze(-1)
        present = users[positions]
        rows, items = self.truth.of(present)
        counts = torch.bincount(rows, minlength=present.numel())
        slots = torch.arange(rows.numel()) - (counts.cumsum(0) - counts)[rows]
        truth = torch.full((present.numel(), int(counts.max()) if counts.numel() else 0), -1)
        truth[rows, slots] = items
        new = present >= self.block.num_old_users
        masked_rows, masked_items = self.masked.of(present)
        first_new = self.block.num_old_items
        return BlockTargets(self.block.index, positions, truth, masked_rows, masked_items, new, first_new, self.split)


def _splits(block: Block) -> list[tuple[Split, Interactions]]:
    return [(name, block.split(name)) for name in Split]


class EvaluationLoader:
    """Batches of users with what each block asks of them (full ranking; nobody is asked twice).

    On block D_j a valid ranking leaves out the user's train and test items of D_j, a test ranking those of train and
    valid. Every process gets the same number of batches, the last of which may be empty.

    Args:
        blocks: the blocks that ask.
        split: whose items are the ground truth.
        batch_size: users of a batch.
        beside: another split that is asked in the same pass, since scores cost most.
    """

    def __init__(self, blocks: list[Block], split: Split, batch_size: int, beside: Split | None = None) -> None:
        self.blocks = [block.index for block in blocks]
        self.splits = (split,) if beside is None else (split, beside)
        self.answers = [_BlockAnswers(block, name) for name in self.splits for block in blocks]
        self.users = torch.unique(torch.cat([answers.users for answers in self.answers]))
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(_equal_shares(len(self.users), self.batch_size))

    def __iter__(self) -> Iterator[EvaluationBatch]:
        for rows in _equal_shares(len(self.users), self.batch_size):
            users = self.users[rows]
            yield EvaluationBatch(users, [answers.targets(users) for answers in self.answers])


class UserLoader:
    """Plain batches of user ids, each user once; every process gets the same number of them, the last may be empty.

    Args:
        users: int64 ``(n,)``, no repeats.
        batch_size: users of a batch.
    """

    def __init__(self, users: Tensor, batch_size: int) -> None:
        self.users, self.batch_size = users, batch_size

    def __len__(self) -> int:
        return len(_equal_shares(len(self.users), self.batch_size))

    def __iter__(self) -> Iterator[Tensor]:
        for rows in _equal_shares(len(self.users), self.batch_size):
            yield self.users[rows]


def _equal_shares(count: int, size: int) -> list[slice]:
    """This process's slices of ``range(count)``, at least one, and as many as every other process has."""
    size = min(size, max(1, math.ceil(count / world_size())))
    mine = list(own_chunks(count, size))
    share = max(1, math.ceil(math.ceil(count / size) / world_size()))
    # Lightning skips or refuses a loop that has no batch, and then the other processes would wait for this one.
    return mine + [slice(0, 0)] * (share - len(mine))
