"""Cases of the teachers' graph distillation (LWC-KD), on all the old users and items of the stream's first block."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.cases import Seconds, alternate
from ccd_lightning.backbones import BPRMF
from ccd_lightning.data import ContinualDataModule
from ccd_lightning.objectives import GraphDistillation, OldKnowledge, PersonalWeights
from ccd_lightning.types import RankingBatch

BATCH, DIM, SAMPLE = 2048, 128, 1024


def graph_distillation_step(stream: ContinualDataModule) -> Seconds:
    """One step with personal weights, forward and backward, against the products of its scores and gradients alone."""
    model, batch, objective = _prepared(stream)
    rows = torch.randn(BATCH, DIM)
    tables = [table.detach() for table in model.embeddings()]

    def products() -> None:
        for candidates in (*tables, *tables):
            scores = rows @ candidates.T
            scores.T @ rows

    return alternate(products, lambda: objective(model, batch).backward(), "its matrix products alone", rounds=5)


def sampled_graph_distillation_step(stream: ContinualDataModule) -> Seconds:
    """The same step with 1024 drawn candidates, against the exact one."""
    model, batch, objective = _prepared(stream)
    sampled = _prepared(stream, SAMPLE)[2]
    return alternate(
        lambda: objective(model, batch).backward(),
        lambda: sampled(model, batch).backward(),
        f"all candidates; ours draws {SAMPLE}",
        rounds=5,
    )


def _prepared(stream: ContinualDataModule, sample: int | None = None) -> tuple[BPRMF, RankingBatch, GraphDistillation]:
    history, generator = stream.history(0), torch.Generator().manual_seed(0)
    model = BPRMF(DIM)
    model.meet(history, "random", 20, generator)
    objective = GraphDistillation(OldKnowledge.of(model, history), 1.0, PersonalWeights(DIM), sample=sample)
    objective.prepare(model)
    train = history.block.train
    chosen = torch.randperm(train.size, generator=generator)[:BATCH]
    users, items = train.users[chosen], train.items[chosen]
    return model, RankingBatch(users, items, items[:, None], BATCH), objective


CASES: dict[str, Callable[[ContinualDataModule], Seconds]] = {
    case.__name__.replace("_", " "): case for case in (graph_distillation_step, sampled_graph_distillation_step)
}
