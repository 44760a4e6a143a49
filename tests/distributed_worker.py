"""A little of everything that several processes do together; run as a module, it is one of these processes."""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from ccd_lightning.backbones import Backbone, LightGCN, MultVAE
from ccd_lightning.data.history import History
from ccd_lightning.data.loader import EvaluationLoader
from ccd_lightning.distributed import world_size
from ccd_lightning.modules import BlockMetrics, Recommender
from ccd_lightning.objectives import (
    GraphDistillation,
    OldKnowledge,
    OutputImitation,
    PersonalWeights,
    RankingDistillation,
    Rankings,
    Replay,
    ReplayDraw,
    ReplaySource,
    SoftPositives,
    knowledge,
    pairs_of_lists,
    top_items,
    top_lists,
    top_overlap,
)
from ccd_lightning.types import Side, Split, Stage, StageKind, StageSettings

from .tiny import block, random_history, random_pairs

SIZES = [(30, 20), (37, 26)]
CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def met(model: Backbone, seed: int) -> Backbone:
    """A model that has met block 0 and has rows of some size."""
    model.meet(History(random_history(SIZES).blocks[:1]), "neighbours", 3, generator(seed))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=generator(seed))
    return model


def learn(module: Recommender, epochs: int = 2) -> dict[str, Tensor]:
    """Train as Lightning does under DDP: the processes' gradients are averaged."""
    stage = Stage(1, StageKind.TEACHER_UPDATE, 0)
    module.begin_stage(stage, StageSettings(batch_size=24), random_history(SIZES), 0, 0)
    # Plain descent, since Adam turns gradients near 0 into whole steps, and with them differences in rounding.
    optimizer = torch.optim.SGD([value for value in module.parameters() if value.requires_grad], lr=0.01)
    for epoch in range(epochs):
        module.first_epoch = -epoch
        for batches in module.epoch_batches():
            for batch in batches:
                optimizer.zero_grad()
                module.training_step(batch, 0).backward()
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        assert parameter.grad is not None
                        if world_size() > 1:
                            dist.all_reduce(parameter.grad)
                            parameter.grad /= world_size()
                optimizer.step()
        module.refresh(epoch + 1)
    return {name: value.detach() for name, value in module.named_parameters()}


def graph_model() -> dict[str, Tensor]:
    module = Recommender(met(LightGCN(4), 0))
    first = History(random_history(SIZES).blocks[:1])
    observed = random_history(SIZES).observed("cumulative")
    users, items = top_lists(met(LightGCN(6), 5), 4, observed, CPU)
    excluded = observed.union(pairs_of_lists(users, *SIZES[1]), pairs_of_lists(items, *reversed(SIZES[1])).transpose())
    remembered = top_items(met(LightGCN(6), 6), 8, observed, CPU)
    module.personal = PersonalWeights(4, 3)
    module.objectives.extend(
        [
            GraphDistillation(OldKnowledge.of(module.backbone, first, 3), 0.5, module.personal, sample=11),
            RankingDistillation(users, excluded, Side.USER, 0.1, propagated=True),
            RankingDistillation(items, excluded.transpose(), Side.ITEM, 0.1, sample=7),
            Replay(ReplayDraw([ReplaySource("proxy", remembered, 3)], 0.1, chunk=5)),
        ]
    )
    return {f"graph model {name}": value for name, value in learn(module).items()}


def auto_encoder() -> dict[str, Tensor]:
    module = Recommender(met(MultVAE(4, anneal_steps=20), 1))
    first = History(random_history(SIZES).blocks[:1])
    lists = torch.rand(30, 20, generator=generator(2)).argsort(1)[:, :6]
    draw = ReplayDraw([ReplaySource("student", Rankings(lists, lists.float()), 2)], 0.1, chunk=7)
    # Most users have no interaction in the block to learn from, and bring what is replayed for them.
    active = random_history(SIZES).block.train.users[:9]
    module.objectives.extend(
        [OutputImitation(deepcopy(module.backbone), first.observed("block"), 0.5), SoftPositives(draw, active)]
    )
    return {f"auto-encoder {name}": value for name, value in learn(module).items()}


def rankings() -> dict[str, Tensor]:
    model = met(LightGCN(6), 3)
    users, items = top_lists(model, 5, random_history(SIZES).observed("block"), CPU)
    best = top_items(model, 50, random_history(SIZES).observed("block"), CPU)
    other = met(LightGCN(4), 7)
    shared = top_overlap(model, other, 5, random_history(SIZES).observed("block"), CPU)
    lists = {"user lists": users, "item lists": items, "best items": best.items, "best scores": best.scores}
    return {**lists, "overlap": torch.tensor(shared)}


def metrics() -> dict[str, Tensor]:
    asked = block(0, SIZES[1], SIZES[0], *(random_pairs(SIZES[1], 90, seed) for seed in (1, 2, 3)))
    model, found = met(LightGCN(4), 4), BlockMetrics((3, 9))
    for batch in EvaluationLoader([asked], Split.TEST, 512):
        known = int((batch.users < model.num_users).sum())
        with torch.no_grad():
            found.update(model.scores(batch.users[:known]), batch.targets[0], known)
    return {
        f"{group} {name}": torch.tensor(value)
        for group, rows in found.compute().items()
        for name, value in rows.items()
    }


def everything() -> dict[str, Tensor]:
    knowledge.CHUNK = 4
    return {**graph_model(), **auto_encoder(), **rankings(), **metrics()}


if __name__ == "__main__":
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=world)
    torch.save(everything(), folder / f"{rank}.pt")
    dist.destroy_process_group()
