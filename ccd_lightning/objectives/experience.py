"""Experience replay: earlier interactions are learned beside the block's own."""

from __future__ import annotations

import torch

from ccd_lightning.data.loader import BatchSet
from ccd_lightning.objectives.own import OwnLoss
from ccd_lightning.types import Interactions


class ExperienceReplay(OwnLoss):
    """The own loss on the block's interactions and on earlier ones, which are drawn uniformly and anew for every epoch.

    Uniform replay from a memory that holds the whole past (reservoir-free form of Chaudhry et al., "On Tiny Episodic
    Memories in Continual Learning", 2019): old and new interactions are mixed in the same batches.

    Args:
        own: the loss on the block alone.
        past: train interactions of the earlier blocks.
        share: how many of them an epoch learns, as a multiple of the block's interactions; ``inf`` takes all.
    """

    def __init__(self, own: OwnLoss, past: Interactions, share: float) -> None:
        super().__init__(own.interactions, own.forbidden, own.negatives, own.kind)
        self.past = past
        self.number = int(min(share * max(own.interactions.size, 1), past.size))

    def batches(self, batch_size: int, generator: torch.Generator) -> BatchSet:
        """The block's interactions and a draw of the earlier ones in a common new order."""
        drawn = torch.randperm(self.past.size, generator=generator)[: self.number]
        replayed = Interactions(self.past.users[drawn], self.past.items[drawn])
        mixed = Interactions.concatenate([self.interactions, replayed])
        return OwnLoss(mixed, self.forbidden, self.negatives, self.kind).batches(batch_size, generator)
