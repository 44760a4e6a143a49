"""What a model may look back on when it meets a block."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from ccd_lightning.data.pairs import PairSet
from ccd_lightning.types import Block, Interactions

Span = Literal["block", "cumulative"]
"""Which train interactions are meant: those of the present block, or those of all the blocks so far."""


@dataclass(frozen=True)
class History:
    """The blocks D_0, ..., D_k, the last of which is the present one."""

    blocks: tuple[Block, ...]

    @property
    def block(self) -> Block:
        """The present block D_k."""
        return self.blocks[-1]

    @cached_property
    def cumulative(self) -> Interactions:
        """The train interactions of all the blocks so far."""
        return Interactions.concatenate([block.train for block in self.blocks])

    @property
    def past(self) -> Interactions:
        """The train interactions of the blocks before the present one."""
        return Interactions.concatenate([Interactions.empty(), *(block.train for block in self.blocks[:-1])])

    def since(self, known: int) -> History:
        """The same to a model that has not met every block: those after the last one that it knows are one block to it.

        Args:
            known: index of the last block that it has met; -1 for a model that begins with the present one.
        """
        unmet = self.blocks[known + 1 :]
        if known < 0 or len(unmet) < 2:
            return self
        train = Interactions.concatenate([block.train for block in unmet])
        first = unmet[0]
        news = replace(self.block, train=train, num_old_users=first.num_old_users, num_old_items=first.num_old_items)
        return History((*self.blocks[: known + 1], news))

    def train(self, span: Span) -> Interactions:
        """Train interactions of the present block, or of all the blocks so far."""
        return self.block.train if span == "block" else self.cumulative

    def observed(self, span: Span) -> PairSet:
        """The same as a set of (user, item) pairs, over all known users and items."""
        cache = self.__dict__.setdefault("_observed", {})
        if span not in cache:
            cache[span] = PairSet.from_interactions(self.train(span), self.block.num_users, self.block.num_items)
        found: PairSet = cache[span]
        return found
