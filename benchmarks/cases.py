"""The cases: each times a baseline and ours on the same tensors."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ccd_lightning import functional as F
from ccd_lightning.backbones import LightGCN
from ccd_lightning.data import ContinualDataModule, PairSet
from ccd_lightning.objectives import RankingDistillation
from ccd_lightning.types import RankingBatch, Side


class Seconds(NamedTuple):
    """What one case took.

    Args:
        baseline: median seconds of the baseline; ``None`` if none can run here.
        ours: median seconds of ours.
        against: what the baseline is.
        target: seconds aimed at on two cores that nothing else disturbs.
        note: what else was found.
        least: least seconds of ours, the nearest to what an undisturbed machine takes; ``None`` if it ran once.
    """

    baseline: float | None
    ours: float
    against: str
    target: float | None = None
    note: str = ""
    least: float | None = None


class SkippedError(Exception):
    """A case that cannot run here, with the reason."""


def alternate(baseline: Callable[[], object], ours: Callable[[], object], against: str, rounds: int = 7) -> Seconds:
    """Time both in turn, so that a drift of the machine hits them alike; one warm-up is left out."""
    times: tuple[list[float], list[float]] = ([], [])
    for round_index in range(rounds + 1):
        for run, seconds in zip((baseline, ours), times, strict=True):
            started = time.perf_counter()
            run()
            if round_index:
                seconds.append(time.perf_counter() - started)
    return Seconds(statistics.median(times[0]), statistics.median(times[1]), against, least=min(times[1]))


def ranking_distillation_step(stream: ContinualDataModule) -> Seconds:
    """Stage 1, user side, one step of 1024 interactions with the exact sum over the uninteresting items."""
    history = stream.history(0)
    block, generator = history.block, torch.Generator().manual_seed(0)
    student = LightGCN(8)
    student.meet(history, "random", 20, generator)
    lists = torch.randint(block.num_items, (block.num_users, 40), generator=generator)
    objective = RankingDistillation(lists, history.observed("block"), Side.USER)
    rows = torch.randperm(block.train.size, generator=generator)[:1024]
    users, items = block.train.users[rows], block.train.items[rows]
    batch = RankingBatch(users, items, items[:, None], 1024)
    present = torch.unique(users)
    others = torch.randint(block.num_items, (present.numel(), 10_000), generator=generator)

    def gathered() -> None:
        user, item = student.embeddings(propagated=False)
        interesting = (user[present].unsqueeze(1) * item[lists[present]]).sum(-1)
        uninteresting = torch.bmm(item[others], user[present].unsqueeze(-1)).squeeze(-1)
        F.relaxed_ranking_loss(interesting, uninteresting).backward()

    return alternate(
        gathered, lambda: objective(student, batch).backward(), "10,000 gathered items a user (the release)", rounds=3
    )


def lightgcn_step(stream: ContinualDataModule) -> Seconds:
    """One LightGCN step of 128 dimensions: forward, backward."""
    history = stream.history(0)
    block, generator = history.block, torch.Generator().manual_seed(0)
    model = LightGCN(128)
    model.meet(history, "random", 20, generator)
    rows = torch.randperm(block.train.size, generator=generator)[:2048]
    users, items = block.train.users[rows], block.train.items[rows]
    negatives = history.observed("block").draw_outside(users, 1, generator)
    sizes = (block.num_users, block.num_items)
    graph = F.normalised_adjacency(block.train.users, block.train.items, *sizes).to_sparse_coo().coalesce()

    def plain() -> None:
        layers = [torch.cat([model.user_embedding, model.item_embedding])]
        for _ in range(2):
            layers.append(torch.sparse.mm(graph, layers[-1]))
        user, item = torch.stack(layers).mean(0).split(sizes)
        margin = (user[users] * (item[items] - item[negatives.squeeze(1)])).sum(-1)
        torch.nn.functional.softplus(-margin).sum().backward()

    batch = RankingBatch(users, items, negatives, 2048)
    return alternate(plain, lambda: model.loss(batch).backward(), "torch.sparse.mm on COO, autograd, indexing")


def ranks_of_all_items(stream: ContinualDataModule) -> Seconds:
    """Ranks of the whole catalogue for 512 users."""
    scores = torch.randn(512, stream.blocks[0].num_items, generator=torch.Generator().manual_seed(0))

    def plain() -> Tensor:
        return (-scores).argsort(stable=True).argsort()

    return alternate(plain, lambda: F.rank_items(scores), "torch.argsort twice", rounds=3)


def negatives_of_an_epoch(stream: ContinualDataModule) -> Seconds:
    """Two negatives for each interaction of D_0."""
    history = stream.history(0)
    observed: PairSet = history.observed("block")
    users, generator = history.block.train.users, torch.Generator().manual_seed(0)

    def rejection() -> None:
        rows = users.unsqueeze(1).expand(-1, 2)
        drawn = torch.randint(observed.num_columns, rows.shape, generator=generator)
        while (bad := observed.contains(rows, drawn)).any():
            drawn[bad] = torch.randint(observed.num_columns, (int(bad.sum()),), generator=generator)

    return alternate(rejection, lambda: observed.draw_outside(users, 2, generator), "rejection until none is observed")


CASES: dict[str, Callable[[ContinualDataModule], Seconds]] = {
    case.__name__.replace("_", " "): case
    for case in (
        ranking_distillation_step,
        lightgcn_step,
        ranks_of_all_items,
        negatives_of_an_epoch,
    )
}
