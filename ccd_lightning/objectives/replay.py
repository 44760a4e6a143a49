"""Replay of what the learning model has forgotten, as soft labels from models that remember it."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from ccd_lightning import functional as F
from ccd_lightning.backbones import Backbone, MultVAE, evaluating
from ccd_lightning.data.loader import BatchSet
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.distributed import own_chunks, share_rows
from ccd_lightning.objectives.base import Objective
from ccd_lightning.objectives.knowledge import Rankings
from ccd_lightning.types import Interactions, SoftLabelBatch, UserBatch

Pairs = tuple[Tensor, Tensor, Tensor]
"""Users, items and soft labels, each ``(P,)``."""


class ReplaySource:
    """A model that remembers: its top-N rankings, and how many pairs a user are replayed from them.

    Args:
        name: for reports.
        rankings: top-N unobserved items a user with scores.
        samples: pairs drawn for each user.
    """

    def __init__(self, name: str, rankings: Rankings, samples: int) -> None:
        self.name, self.rankings, self.samples = name, rankings, samples


class ReplayDraw:
    """Draws the pairs to replay: what a source ranks high and the learning model ranks lower than the source.

    From each source, n items a user are drawn without replacement from its top N with weight
    exp(eps * (rank_model - rank_source)) (paper, proxy-guided replay learning); the soft label is the sigmoid of the
    source's score, and where several sources give a pair, the larger label.

    Args:
        sources: models that remember.
        eps: sharpness of the rank discrepancy; 0 draws uniformly from the top N.
        chunk: users ranked at a time.
    """

    def __init__(self, sources: list[ReplaySource], eps: float, chunk: int = 512) -> None:
        self.sources = [source for source in sources if source.samples > 0]
        self.eps, self.chunk = eps, chunk
        self.counts: dict[str, int] = {}

    @torch.no_grad()
    def __call__(self, backbone: Backbone, generator: torch.Generator) -> Pairs:
        """Users, items and labels of the pairs, on the CPU, each ``(P,)``, sorted by user and item."""
        ranks = self._model_ranks(backbone, [source.rankings.items for source in self.sources])
        parts = [self._from_source(*pair, generator) for pair in zip(self.sources, ranks, strict=True)]
        if not parts:
            empty = torch.empty(0, dtype=torch.long)
            return empty, empty, torch.empty(0)
        self.counts = {source.name: users.numel() for source, (users, _, _) in zip(self.sources, parts, strict=True)}
        users, items, labels = (torch.cat(columns) for columns in zip(*parts, strict=True))
        return F.larger_labels(users, items, labels, backbone.num_items)

    def _from_source(self, source: ReplaySource, ranks: Tensor, generator: torch.Generator) -> Pairs:
        items, scores = source.rankings.items, source.rankings.scores
        places = torch.arange(items.shape[1]).expand_as(items)
        weights = ((ranks - places) * self.eps).exp() * (items >= 0)
        slots = F.sample_without_replacement(weights, min(source.samples, items.shape[1]), generator)
        users = torch.arange(items.shape[0]).unsqueeze(1).expand_as(slots)[slots >= 0]
        chosen = slots[slots >= 0]
        return users, items[users, chosen], scores[users, chosen].sigmoid()

    def _model_ranks(self, backbone: Backbone, lists: list[Tensor]) -> list[Tensor]:
        """Rank that the learning model gives to each listed item among all the items, int32, of the lists' shapes.

        One pass over the users answers for all the lists: what takes long is to score and to sort a user's items.
        """
        # Processes on GPUs can only share what lies there.
        device = next(backbone.parameters()).device
        ranks = [torch.zeros(items.shape, dtype=torch.int32, device=device) for items in lists]
        if self.eps == 0:
            return [known.cpu() for known in ranks]
        widths = [items.shape[1] for items in lists]
        with evaluating(backbone):
            for rows in own_chunks(max((items.shape[0] for items in lists), default=0), self.chunk):
                asked = [items[rows].clamp_min(0) for items in lists]
                height = max(len(items) for items in asked)
                together = torch.cat([pad(items, (0, 0, 0, height - len(items))) for items in asked], dim=1)
                users = torch.arange(rows.start, rows.start + height, device=device)
                found = F.ranks_of(backbone.scores(users), together.to(device)).int().split_with_sizes(widths, dim=1)
                for known, items, part in zip(ranks, asked, found, strict=True):
                    known[rows] = part[: len(items)]
        return [share_rows(known).cpu() for known in ranks]


class Replay(Objective):
    """Binary cross-entropy with the soft labels of the replayed pairs, summed; weight ``scale * exp(-epoch / decay)``.

    Args:
        draw: draws the pairs, anew at every refresh.
        scale: weight at the first epoch.
        decay: epochs over which the weight falls by e; ``None`` keeps it as it is.
    """

    name = "replay"
    batch_types = (SoftLabelBatch,)

    def __init__(self, draw: ReplayDraw, scale: float = 0.5, decay: float | None = 10.0) -> None:
        super().__init__()
        self.draw, self.scale, self.decay = draw, scale, decay
        self._pairs: Pairs | None = None

    def weight(self, epoch: int) -> float:
        """Annealed: new knowledge matters more and more."""
        return annealed(self.scale, self.decay, epoch)

    def refresh(self, backbone: Backbone, generator: torch.Generator) -> None:
        """Draw anew with the model's present ranks."""
        self._pairs = self.draw(backbone, generator)

    def get_extra_state(self) -> Pairs | None:
        """The drawn pairs: they depend on a state of the model that is gone when a stage goes on."""
        return self._pairs

    def set_extra_state(self, state: Pairs | None) -> None:
        """Restore :meth:`get_extra_state`."""
        self._pairs = state

    def batches(self, batch_size: int, generator: torch.Generator) -> BatchSet | None:
        """The drawn pairs in a new order."""
        if self._pairs is None or not self._pairs[0].numel():
            return None
        order = torch.randperm(self._pairs[0].numel(), generator=generator)
        columns = tuple(column.index_select(0, order) for column in self._pairs)
        return BatchSet(SoftLabelBatch, columns, batch_size)

    def forward(self, backbone: Backbone, batch: SoftLabelBatch) -> Tensor:
        """Sum over the batch's pairs."""
        return F.soft_label_loss(backbone.pair_scores(batch.users, batch.items), batch.labels)


class SoftPositives(Objective):
    """The same draw as soft positives in an auto-encoder's input rows, in place of a loss of its own.

    Users whom the model's own loss does not bring, since they have no train interaction in the block, come in batches of
    their own: what is replayed is learned for everybody.

    Args:
        draw: draws the pairs, anew at every refresh.
        active: users whom the own loss brings, int64, in any order and number.
    """

    name = "soft_positives"
    batch_types = ()

    def __init__(self, draw: ReplayDraw, active: Tensor) -> None:
        super().__init__()
        self.draw, self.active = draw, active
        self._pairs: tuple[Tensor, Tensor] = (torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long))

    def get_extra_state(self) -> tuple[Tensor, Tensor]:
        """The drawn pairs, as for :class:`Replay`."""
        return self._pairs

    def set_extra_state(self, state: tuple[Tensor, Tensor]) -> None:
        """Restore :meth:`get_extra_state`."""
        self._pairs = state

    def refresh(self, backbone: Backbone, generator: torch.Generator) -> None:
        """Draw anew and hand the pairs to the auto-encoder."""
        self._pairs = self.draw(backbone, generator)[:2]
        self.resume(backbone)

    def batches(self, batch_size: int, generator: torch.Generator) -> BatchSet | None:
        """The other users who have soft positives, in a new order."""
        users = torch.unique(self._pairs[0])
        others = users[~torch.isin(users, self.active)]
        if not others.numel():
            return None
        others = others[torch.randperm(others.numel(), generator=generator)]
        return BatchSet(UserBatch, (others,), batch_size, owner=others)

    def resume(self, backbone: Backbone) -> None:
        """Hand the pairs to the auto-encoder."""
        if not isinstance(backbone, MultVAE):
            raise ValueError(f"{type(backbone).__name__} takes no soft positives: use `Replay` for it.")
        backbone.set_soft_positives(PairSet(*self._pairs, backbone.num_users, backbone.num_items))

    def finish(self, backbone: Backbone) -> None:
        """Leave the input rows as observed."""
        assert isinstance(backbone, MultVAE)
        backbone.set_soft_positives(PairSet(*Interactions.empty(), backbone.num_users, backbone.num_items))

    def forward(self, backbone: Backbone, batch: object) -> Tensor:
        """No term of its own."""
        return torch.zeros(())


def annealed(scale: float, decay: float | None, epoch: int) -> float:
    """``scale * exp(-epoch / decay)``, or ``scale`` at any time without a decay.

    >>> annealed(0.5, 10.0, 0), annealed(0.5, None, 7)
    (0.5, 0.5)
    """
    return scale if decay is None else scale * math.exp(-epoch / decay)
