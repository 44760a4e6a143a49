"""What a stage minimises: a sum of objectives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ccd_lightning.backbones import Backbone
from ccd_lightning.data.loader import BatchSet
from ccd_lightning.types import RankingBatch


class Objective(nn.Module, ABC):
    """One term of the loss: which batches it looks at, its value on a batch, and its weight in an epoch.

    Values are sums over the rows of this process, or, for means, divided by the global batch's size, so that the values
    of all the processes add up to the loss of the global batch.

    Attributes:
        name: word for logs, unique in a stage; by default the class's name in lower case.
        batch_types: kinds of batches that the objective looks at.
    """

    name: str = "objective"
    batch_types: tuple[type, ...] = (RankingBatch,)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.name == Objective.name:
            cls.name = cls.__name__.lower()

    @abstractmethod
    def forward(self, backbone: Backbone, batch: Any) -> Tensor:
        """Value on a batch of one of :attr:`batch_types`, a scalar, before weighting."""

    def weight(self, epoch: int) -> float:
        """Weight in the stage's ``epoch``, counted from 0."""
        return 1.0

    def batches(self, batch_size: int, generator: torch.Generator) -> BatchSet | None:
        """One epoch of batches that this objective adds to the stage; most look at batches that others bring.

        Args:
            batch_size: rows of a global batch.
            generator: CPU generator of this epoch and objective.
        """
        return None

    def prepare(self, backbone: Backbone) -> None:
        """Called once, when the model has grown to the stage's block and before the optimizer is built."""

    def refresh(self, backbone: Backbone, generator: torch.Generator) -> None:
        """Redraw samples that depend on the model's present state: at the start and after every evaluation.

        Args:
            backbone: the learning model.
            generator: CPU generator of this refresh and objective.
        """

    def resume(self, backbone: Backbone) -> None:
        """Called when training starts, at the beginning or within a stage: lend the model again what was restored."""

    def finish(self, backbone: Backbone) -> None:
        """Called once when the stage ends: take back whatever was lent to the model."""


def per_block(value: float | Sequence[float], block: int) -> float:
    """A setting's value for block k = 1, 2, ...; a list's last value holds for all later blocks.

    >>> per_block([1.0, 0.9], 1), per_block([1.0, 0.9], 7), per_block(0.5, 3)
    (1.0, 0.9, 0.5)
    """
    if isinstance(value, Sequence):
        if not value:
            raise ValueError(
                "A setting by block is an empty list, but needs one value a block: give at least one number."
            )
        return value[min(max(block - 1, 0), len(value) - 1)]
    return value
