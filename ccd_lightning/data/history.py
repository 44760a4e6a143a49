"""What a model may look back on when it meets a block."""

from __future__ import annotations

from dataclasses import dataclass
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
