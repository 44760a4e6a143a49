"""An epoch through the Trainer, and the same batches in a bare loop over plain PyTorch."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor

from ccd_lightning import functional as F
from ccd_lightning.backbones import EmbeddingBackbone, LightGCN
from ccd_lightning.data import ContinualDataModule, PairSet
from ccd_lightning.data.history import History
from ccd_lightning.modules import Recommender
from ccd_lightning.plan import StreamPlan
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import ListBatch, RankingBatch, Side, SoftLabelBatch, Stage, StageSettings

BASELINE_STEPS = 8


class EpochClock(Callback):
    """Seconds from the end of one epoch to the end of the next: its batches, its steps, and whatever the loop adds."""

    def __init__(self) -> None:
        """Nothing has ended yet."""
        self.ends: list[float] = []

    def on_train_epoch_end(self, *_: object) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())


def epoch_seconds(
    learner: Recommender, stream: ContinualDataModule, stage: Stage, settings: StageSettings
) -> list[float]:
    """Seconds of each epoch through `Trainer.fit`, the first one left out."""
    clock = EpochClock()
    fit_stage(learner, stream, stage, settings, [clock])
    return [later - earlier for earlier, later in itertools.pairwise(clock.ends)]


def fit_stage(
    learner: Recommender, stream: ContinualDataModule, stage: Stage, settings: StageSettings, callbacks: list[Callback]
) -> None:
    """Let a model learn one stage with some callbacks."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = StreamTrainer(
            plan=StreamPlan(),
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            callbacks=callbacks,
            default_root_dir=folder,
        )
        learner.begin_stage(stage, settings, stream.history(stage.block), stream.seed, 0)
        stream.valid_blocks = (stage.block,)
        with trainer._fresh_loops(learner, settings, stream.validates):
            super(StreamTrainer, trainer).fit(learner, datamodule=stream)


def plain_epoch(learner: Recommender, loss: Callable[[Any], Tensor]) -> float:
    """Seconds of an epoch's batches in a bare loop: some steps of each kind, scaled to their number."""
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3, weight_decay=1e-4)
    seconds = 0.0
    for batches in learner.epoch_batches():
        times = []
        for batch in itertools.islice(batches, BASELINE_STEPS + 1):
            started = time.perf_counter()
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()
            times.append(time.perf_counter() - started)
        seconds += statistics.median(times[1:] or times) * len(batches)
    return seconds


class PlainModel:
    """Embeddings as plain autograd computes them: LightGCN by `torch.sparse` on COO, rows by indexing."""

    def __init__(self, backbone: EmbeddingBackbone, history: History) -> None:
        self.tables = [backbone.user_embedding, backbone.item_embedding]
        self.sizes = [len(table) for table in self.tables]
        self.graph: Tensor | None = None
        if isinstance(backbone, LightGCN):
            edges = history.train("block" if backbone.graph == "block" else "cumulative")
            self.graph = F.normalised_adjacency(edges.users, edges.items, *self.sizes).to_sparse_coo().coalesce()

    def final(self) -> tuple[Tensor, Tensor]:
        """Final users and items."""
        if self.graph is None:
            return self.tables[0], self.tables[1]
        layers = [torch.cat(self.tables)]
        for _ in range(2):
            layers.append(torch.sparse.mm(self.graph, layers[-1]))
        user, item = torch.stack(layers).mean(0).split(self.sizes)
        return user, item

    def loss(self, batch: RankingBatch | SoftLabelBatch) -> Tensor:
        """BPR, or binary cross-entropy with soft labels."""
        user, item = self.final()
        if isinstance(batch, SoftLabelBatch):
            scores = (user[batch.users] * item[batch.items]).sum(-1)
            return torch.nn.functional.binary_cross_entropy_with_logits(scores, batch.labels, reduction="sum")
        margin = (user[batch.users] * (item[batch.positives] - item[batch.negatives.squeeze(1)])).sum(-1)
        return torch.nn.functional.softplus(-margin).sum()

    def list_loss(self, batch: RankingBatch | ListBatch, lists: dict[Side, Tensor], excluded: PairSet) -> Tensor:
        """Relaxed ranking distillation from a whole score matrix in the graph."""
        by_user = isinstance(batch, RankingBatch)
        own, other = self.tables if by_user else reversed(self.tables)
        rows = torch.unique(batch.users) if isinstance(batch, RankingBatch) else batch.entities
        scores = own[rows] @ other.T
        interesting = scores.gather(1, lists[Side.USER if by_user else Side.ITEM][rows]).clamp(max=10)
        left_out = torch.zeros_like(scores, dtype=torch.bool)
        left_out[excluded.of(rows) if by_user else excluded.transpose().of(rows)] = True
        rest = scores.clamp(max=10).masked_fill(left_out, -torch.inf).logsumexp(-1, keepdim=True)
        tail = interesting.flip(-1).logcumsumexp(-1).flip(-1)
        return 0.01 * (torch.logaddexp(tail, rest) - interesting).sum()
