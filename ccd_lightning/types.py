"""The words the whole library speaks: blocks of data, stages of the stream, and the batches of a training step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

from ccd_lightning.checks import require_number, require_whole


class Split(str, Enum):
    """The part that an interaction plays in its block."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"


class StageKind(str, Enum):
    """What a stage does (paper, Figure 2): the base training, and the three stages of a cycle."""

    BASE = "base"
    STUDENT_UPDATE = "student_update"
    TEACHER_UPDATE = "teacher_update"
    DISTILLATION = "distillation"


@dataclass(frozen=True)
class Stage:
    """One Lightning fit: which model learns what, on which block.

    Args:
        block: index k of the block D_k.
        kind: what is learned.
        teacher: index of the teacher that learns, ``None`` if it is the student.
        is_last_of_kind: whether no other stage of this kind follows in the block.
    """

    block: int
    kind: StageKind
    teacher: int | None = None
    is_last_of_kind: bool = True

    @property
    def name(self) -> str:
        """A unique name inside the stream, fit for file names and log keys.

        >>> Stage(3, StageKind.TEACHER_UPDATE, teacher=1).name
        'block3-teacher_update-1'
        """
        model = "" if self.teacher is None else f"-{self.teacher}"
        return f"block{self.block}-{self.kind.value}{model}"


class Interactions(NamedTuple):
    """Implicit feedback as aligned columns.

    Attributes:
        users: contiguous user ids, int64 ``(n,)``.
        items: contiguous item ids, int64 ``(n,)``.
    """

    users: Tensor
    items: Tensor

    @classmethod
    def empty(cls) -> Interactions:
        """No interaction at all."""
        return cls(torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long))

    @classmethod
    def concatenate(cls, parts: list[Interactions]) -> Interactions:
        """The rows of all the parts, one part after the other."""
        return cls(torch.cat([part.users for part in parts]), torch.cat([part.items for part in parts]))

    @property
    def size(self) -> int:
        """Number of interactions."""
        return self.users.numel()


@dataclass(frozen=True)
class Block:
    """One time block D_k of the stream, in contiguous ids.

    Entities are known after the block if any row of it or of an earlier block names them; the new ones have the last ids.

    Args:
        index: k, counted from 0.
        num_users: users known after this block.
        num_items: items known after this block.
        num_old_users: users known before it.
        num_old_items: items known before it.
        train: interactions to learn from, repeats dropped.
        valid: held-out interactions for choosing settings.
        test: held-out interactions for reporting.
        repeats_dropped: how many repeated (user, item) pairs inside one split were dropped.
        fingerprint: digest of the block's raw content; equal fingerprints mean equal data.
    """

    index: int
    num_users: int
    num_items: int
    num_old_users: int
    num_old_items: int
    train: Interactions
    valid: Interactions
    test: Interactions
    repeats_dropped: int = 0
    fingerprint: str = ""

    def split(self, name: Split) -> Interactions:
        """The interactions of one split."""
        return {Split.TRAIN: self.train, Split.VALID: self.valid, Split.TEST: self.test}[name]


class Side(str, Enum):
    """Whose rankings: lists of items for users, or lists of users for items."""

    USER = "user"
    ITEM = "item"


class RankingBatch(NamedTuple):
    """Observed interactions with drawn negatives.

    Attributes:
        users: int64 ``(B,)``.
        positives: observed items, int64 ``(B,)``.
        negatives: unobserved items, int64 ``(B, N)``.
        global_size: rows of the whole batch over all processes, for losses that are means.
    """

    users: Tensor
    positives: Tensor
    negatives: Tensor
    global_size: int


class UserBatch(NamedTuple):
    """Users whose whole input rows are learned at once.

    Attributes:
        users: int64 ``(B,)``, no repeats.
        global_size: rows of the whole batch over all processes.
    """

    users: Tensor
    global_size: int


class SoftLabelBatch(NamedTuple):
    """Replayed pairs with the soft labels of the model that remembers them.

    Attributes:
        users: int64 ``(B,)``.
        items: int64 ``(B,)``.
        labels: probabilities, float ``(B,)``.
        global_size: rows of the whole batch over all processes.
    """

    users: Tensor
    items: Tensor
    labels: Tensor
    global_size: int


class ListBatch(NamedTuple):
    """Entities whose ranking lists are imitated, without any interaction.

    Attributes:
        entities: users or items, by ``side``, int64 ``(B,)``.
        side: whose rankings.
        global_size: rows of the whole batch over all processes.
    """

    entities: Tensor
    side: Side
    global_size: int


Batch = RankingBatch | UserBatch | SoftLabelBatch | ListBatch


class BlockTargets(NamedTuple):
    """What one block asks of a batch of users.

    Attributes:
        block: index j of D_j.
        positions: rows of the batch that have ground truth in D_j, int64 ``(R,)``.
        truth: ground-truth items of these rows, padded with -1, int64 ``(R, G)``.
        masked_rows: rows (of the R) of pairs that must not be ranked, int64 ``(P,)``.
        masked_items: items of these pairs, int64 ``(P,)``.
        new_users: which of the R users are new in D_j, bool ``(R,)``.
        first_new_item: items from this id on are new in D_j.
        split: whose items are the ground truth.
    """

    block: int
    positions: Tensor
    truth: Tensor
    masked_rows: Tensor
    masked_items: Tensor
    new_users: Tensor
    first_new_item: int
    split: Split = Split.TEST


class EvaluationBatch(NamedTuple):
    """Users to rank the whole catalogue for, with the targets of every block that is asked.

    Attributes:
        users: int64 ``(B,)``.
        targets: one entry a block.
    """

    users: Tensor
    targets: list[BlockTargets]


@dataclass
class StageSettings:
    """How one kind of stage is optimised.

    Args:
        max_epochs: epochs at most; ``None`` takes `trainer.max_epochs`.
        learning_rate: Adam's step size.
        batch_size: rows of a batch, over all processes.
        negatives: unobserved items drawn for each observed one.
        weight_decay: L2 penalty inside Adam, as published. Adam scales it as it does any gradient: a row that nothing else moves,
            of an entity that the stage never meets, goes towards 0 by a whole step at a time; with 0 it stays as it is.
        eps: what Adam adds to the root mean square of a gradient before it divides by it: gradients much smaller than this,
            such as what rounding leaves of terms that cancel, make no whole steps.
        evaluate_every: epochs between two evaluations on the validation split; 0 never evaluates.
        patience: evaluations without a better validation Recall@20 before the stage stops and returns to its best state.
        monitor_seen: validate on all blocks so far (each counts the same) in place of the stage's own block.
        past: train interactions of earlier blocks that are learned beside the block's own, drawn uniformly and anew for every
            epoch (experience replay), as a multiple of the block's number; `.inf` takes all of them.
        afresh: begin with a fresh model, which knows nothing of earlier blocks.
    """

    max_epochs: int | None = None
    learning_rate: float = 1e-3
    batch_size: int = 2048
    negatives: int = 1
    weight_decay: float = 1e-4
    eps: float = 1e-8
    evaluate_every: int = 5
    patience: int = 2
    monitor_seen: bool = False
    past: float = 0.0
    afresh: bool = False

    def __post_init__(self) -> None:
        """Refuse values that no optimisation can run with."""
        require_number("learning_rate", self.learning_rate, above=0)
        require_number("weight_decay", self.weight_decay, least=0)
        require_number("eps", self.eps, above=0)
        if self.past != math.inf:
            require_number("past", self.past, least=0)
        for name, least in (("batch_size", 1), ("negatives", 1), ("evaluate_every", 0), ("patience", 1)):
            require_whole(name, getattr(self, name), least)
        if self.max_epochs is not None:
            require_whole("max_epochs", self.max_epochs, 1)


def chunks(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most ``size`` rows that cover ``range(count)``.

    >>> list(chunks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
