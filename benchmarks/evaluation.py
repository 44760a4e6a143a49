"""Full rankings of all the users of the paper's Yelp stream by one model of 128 dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.cases import Seconds, alternate
from ccd_lightning import functional as F
from ccd_lightning.backbones import LightGCN
from ccd_lightning.data import ContinualDataModule, PairSet
from ccd_lightning.modules import BlockMetrics
from ccd_lightning.objectives import top_items
from ccd_lightning.types import chunks

CHUNK, PLACES, ROUNDS = 512, 100, 3


def _model(stream: ContinualDataModule) -> tuple[LightGCN, PairSet]:
    history = stream.history(len(stream.blocks) - 1)
    model = LightGCN(128)
    model.meet(history, "random", 20, torch.Generator().manual_seed(0))
    return model, history.observed("cumulative")


def _scored(model: LightGCN) -> Iterator[tuple[Tensor, Tensor]]:
    for rows in chunks(model.num_users, CHUNK):
        users = torch.arange(rows.start, rows.stop)
        yield users, model.scores(users)


@torch.no_grad()
def top_100_of_all_users(stream: ContinualDataModule) -> Seconds:
    """The best 100 unobserved items of every user, scores included."""
    model, observed = _model(stream)

    def sorted_whole() -> None:
        for users, scores in _scored(model):
            scores[observed.of(users)] = -torch.inf
            scores.argsort(descending=True)[:, :PLACES]

    ours = lambda: top_items(model, PLACES, observed, torch.device("cpu"))  # noqa: E731
    return alternate(sorted_whole, ours, "torch.argsort of every row", ROUNDS)._replace(target=1.5)


@torch.no_grad()
def test_of_all_users(stream: ContinualDataModule) -> Seconds:
    """Recall, NDCG and hit rate at 20, 50 and 100 on the last block, for its three groups of users."""
    model, _ = _model(stream)
    stream.test_blocks = (len(stream.blocks) - 1,)

    def ranked(places: Callable[[Tensor], Tensor]) -> None:
        for batch in stream.test_dataloader():
            places(model.scores(batch.users))

    def ours() -> None:
        metrics = BlockMetrics((20, 50, PLACES))
        for batch in stream.test_dataloader():
            metrics.update(model.scores(batch.users), batch.targets[0], len(batch.users))

    against = "torch.argsort of every row, without metrics"
    return alternate(lambda: ranked(lambda scores: scores.argsort(descending=True)), ours, against, ROUNDS)


@torch.no_grad()
def ranks_of_100_candidates(stream: ContinualDataModule) -> Seconds:
    """Ranks of 100 candidates of every user among all the items, scores included."""
    model, _ = _model(stream)
    drawn = torch.randint(model.num_items, (model.num_users, PLACES), generator=torch.Generator().manual_seed(0))

    def plain() -> None:
        for users, scores in _scored(model):
            (-scores).argsort().argsort().gather(1, drawn[users])

    def ours() -> None:
        for users, scores in _scored(model):
            F.ranks_of(scores, drawn[users])

    return alternate(plain, ours, "torch.argsort twice", ROUNDS)._replace(target=4.0)


def real_cases() -> Iterator[tuple[str, Callable[[ContinualDataModule], Seconds]]]:
    """Names and cases, all of them on real data."""
    for case in (top_100_of_all_users, test_of_all_users, ranks_of_100_candidates):
        yield case.__name__.replace("_", " "), case
