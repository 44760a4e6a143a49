"""Full rankings of all the users of the paper's Yelp stream by one model of 128 dimensions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.cases import Seconds
from ccd_lightning import functional as F
from ccd_lightning.backbones import Backbone, LightGCN, evaluating
from ccd_lightning.data import ContinualDataModule, PairSet
from ccd_lightning.data.loader import EvaluationLoader
from ccd_lightning.modules import BlockMetrics
from ccd_lightning.objectives import top_items
from ccd_lightning.types import Split, chunks

CHUNK, PLACES, ROUNDS = 512, 100, 3
BASELINE_USERS = 2048


def _model(stream: ContinualDataModule) -> tuple[LightGCN, PairSet]:
    history = stream.history(len(stream.blocks) - 1)
    model = LightGCN(128)
    model.meet(history, "random", 20, torch.Generator().manual_seed(0))
    return model, history.observed("cumulative")


def _compare(
    model: LightGCN,
    baseline: Callable[[Tensor, Tensor], object],
    ours: Callable[[], object],
    against: str,
    target: float | None = None,
) -> Seconds:
    """Median seconds of ours over all the users; the baseline on some of them, scaled to their number."""
    few = min(BASELINE_USERS, model.num_users)

    def sorting() -> None:
        for rows in chunks(few, CHUNK):
            users = torch.arange(rows.start, rows.stop)
            baseline(users, model.scores(users))

    plain, found = ([_seconds(run) for _ in range(ROUNDS)] for run in (sorting, ours))
    scaled = statistics.median(plain) * model.num_users / few
    return Seconds(scaled, statistics.median(found), f"{against}, from {few} users", target, least=min(found))


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@torch.no_grad()
def top_100_of_all_users(stream: ContinualDataModule) -> Seconds:
    """The best 100 unobserved items of every user, scores included."""
    model, observed = _model(stream)

    def sort_whole(users: Tensor, scores: Tensor) -> Tensor:
        scores[observed.of(users)] = -torch.inf
        return scores.argsort(descending=True)[:, :PLACES]

    def ours() -> object:
        return top_items(model, PLACES, observed, torch.device("cpu"))

    return _compare(model, sort_whole, ours, "torch.argsort of every row", 1.5)


@torch.no_grad()
def test_of_all_users(stream: ContinualDataModule) -> Seconds:
    """Recall, NDCG and hit rate at 20, 50 and 100 on the last block, for all, new users and new items."""
    model, _ = _model(stream)
    stream.test_blocks = (len(stream.blocks) - 1,)
    loader = stream.test_dataloader()

    def ours() -> None:
        metrics = BlockMetrics((20, 50, PLACES))
        for batch in loader:
            metrics.update(model.scores(batch.users), batch.targets[0], len(batch.users))

    found = _compare(model, lambda users, scores: scores.argsort(descending=True), ours, "torch.argsort, no metrics")
    share = len(loader.users) / model.num_users
    return found._replace(baseline=found.baseline * share, note=f"{len(loader.users)} users with test items")


@torch.no_grad()
def ranks_of_100_candidates(stream: ContinualDataModule) -> Seconds:
    """Ranks of 100 candidates of every user among all the items, scores included."""
    model, _ = _model(stream)
    drawn = torch.randint(model.num_items, (model.num_users, PLACES), generator=torch.Generator().manual_seed(0))

    def sort_twice(users: Tensor, scores: Tensor) -> Tensor:
        return (-scores).argsort().argsort().gather(1, drawn[users])

    def ours() -> None:
        for rows in chunks(model.num_users, CHUNK):
            F.ranks_of(model.scores(torch.arange(rows.start, rows.stop)), drawn[rows])

    return _compare(model, sort_twice, ours, "torch.argsort twice", 4.0)


@torch.no_grad()
def recalls(backbone: Backbone, stream: ContinualDataModule, last: int, split: Split) -> list[float]:
    """Recall@20 on D_0, ..., D_last by full ranking.

    Args:
        backbone: a model that knows D_last.
        stream: the data.
        last: the last block.
        split: whose interactions are asked for.
    """
    metrics = [BlockMetrics((20,)) for _ in range(last + 1)]
    with evaluating(backbone):
        for batch in EvaluationLoader(list(stream.blocks[: last + 1]), split, CHUNK):
            known = int((batch.users < backbone.num_users).sum())
            scores = backbone.scores(batch.users[:known])
            for metric, targets in zip(metrics, batch.targets, strict=True):
                metric.update(scores, targets, known)
    return [metric.compute()["all"]["recall@20"] for metric in metrics]


def real_cases() -> Iterator[tuple[str, Callable[[ContinualDataModule], Seconds]]]:
    """Names and cases, all of them on real data."""
    for case in (top_100_of_all_users, test_of_all_users, ranks_of_100_candidates):
        yield case.__name__.replace("_", " "), case
