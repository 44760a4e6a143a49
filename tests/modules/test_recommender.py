from __future__ import annotations

import inspect
from copy import deepcopy
from typing import Any

import pytest
import torch

from ccd_lightning.backbones import BPRMF, LightGCN, MultVAE
from ccd_lightning.data.history import History
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.modules import Recommender
from ccd_lightning.objectives import Objective, RankingDistillation, Rankings, Replay, ReplayDraw, ReplaySource
from ccd_lightning.types import RankingBatch, Side, SoftLabelBatch, Stage, StageKind, StageSettings

from ..tiny import block, interactions, random_history

SIZES = [(10, 9), (13, 12)]
STAGE = Stage(1, StageKind.STUDENT_UPDATE)


class Probe(Objective):
    """Notes what it is told."""

    name = "probe"

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.draws: list[float] = []
        self.own = torch.nn.Parameter(torch.ones(2))

    def prepare(self, backbone: Any) -> None:
        self.calls.append(f"prepare {backbone.num_users}")

    def refresh(self, backbone: Any, generator: torch.Generator) -> None:
        self.calls.append("refresh")
        self.draws.append(float(torch.rand(1, generator=generator)))

    def finish(self, backbone: Any) -> None:
        self.calls.append("finish")

    def weight(self, epoch: int) -> float:
        return 3.0

    def forward(self, backbone: Any, batch: RankingBatch) -> torch.Tensor:
        return self.own.sum() * batch.users.numel()


def until(last: int) -> History:
    return History(random_history(SIZES).blocks[: last + 1])


def begun(
    backbone: Any = None, stage: Stage = STAGE, seed: int = 0, role: str = "student", **settings: Any
) -> Recommender:
    module = Recommender(BPRMF(4) if backbone is None else backbone)
    module.role = role
    module.begin_stage(stage, StageSettings(batch_size=16, **settings), until(stage.block), seed, 0)
    return module


def order(module: Recommender, epoch: int = 0) -> list[list[int]]:
    module.first_epoch = -epoch
    (batches,) = module.epoch_batches()
    return [
        [*batch.users.tolist(), *batch.positives.tolist(), *batch.negatives.flatten().tolist()] for batch in batches
    ]


def test_epoch_batches_depend_on_seed_model_stage_and_epoch_alone():
    torch.manual_seed(1)
    expected = order(begun(), 2)
    torch.manual_seed(2)
    module = begun()
    order(module, 0)
    module.refresh(1)
    assert order(module, 2) == expected
    others = [
        order(begun(), 3),
        order(begun(seed=1), 2),
        order(begun(role="teacher0"), 2),
        order(begun(stage=Stage(1, StageKind.DISTILLATION)), 2),
    ]
    assert all(other != expected for other in others)


def test_negatives_avoid_observed_items_of_all_blocks_and_exclusions():
    module = Recommender(BPRMF(4))
    module.begin_stage(Stage(0, StageKind.BASE), StageSettings(), until(0), 0, 0)
    module.end_stage()
    module.excluded = PairSet(*interactions([(user, user % 12) for user in range(13)]), 13, 12)
    module.begin_stage(STAGE, StageSettings(batch_size=64, negatives=8), until(1), 0, 0)
    excluded = module.excluded
    observed = until(1).observed("cumulative")
    for batch in module.epoch_batches()[0]:
        users = batch.users[:, None].expand_as(batch.negatives)
        assert not observed.contains(users, batch.negatives).any()
        assert not excluded.contains(users, batch.negatives).any()
    module.end_stage()
    assert module.excluded is None
    assert len(module.objectives) == 0


def test_model_that_skipped_a_block_learns_it_with_the_next_one():
    sizes = [(8, 9), (12, 12), (13, 14)]
    history = random_history(sizes)
    first, second, third = history.blocks
    module = Recommender(BPRMF(4))
    module.begin_stage(Stage(0, StageKind.BASE), StageSettings(), History((first,)), 0, 0)
    module.end_stage()
    reference = deepcopy(module.backbone)
    stage = Stage(2, StageKind.TEACHER_UPDATE, 0)
    module.begin_stage(stage, StageSettings(batch_size=10_000), history, 0, 0)
    (batch,) = module.epoch_batches()[0]
    learned = sorted(zip(batch.users.tolist(), batch.positives.tolist(), strict=True))
    missed = [pair for one in (second, third) for pair in zip(*(column.tolist() for column in one.train), strict=True)]
    assert learned == sorted(missed)
    # New rows are those that a single block of both would begin with.
    both = block(2, sizes[2], sizes[0], missed)
    reference.meet(History((first, both)), "neighbours", 20, module.generator("new rows"))
    assert torch.equal(module.backbone.user_embedding, reference.user_embedding)
    assert torch.equal(module.backbone.item_embedding, reference.item_embedding)


@pytest.mark.parametrize("graph", ["block", "fold", "cumulative"])
def test_graph_of_a_model_that_skipped_a_block_holds_its_edges(graph):
    sizes = [(8, 9), (12, 12), (13, 14)]
    history = random_history(sizes)
    first, second, third = history.blocks
    pairs = [pair for one in (second, third) for pair in zip(*(column.tolist() for column in one.train), strict=True)]
    whole = History((first, block(2, sizes[2], sizes[0], pairs)))
    tables = []
    for later in (history, whole):
        model = LightGCN(4, graph=graph)
        for met in (History((first,)), later):
            model.meet(met, "neighbours", 20, torch.Generator().manual_seed(0))
        tables.append(torch.cat(model.embeddings()))
        again = LightGCN(4, graph=graph)
        again.load_state_dict(model.state_dict())
        again.observe(later.since(again.known_before))
        assert torch.equal(torch.cat(again.embeddings()), tables[-1])
    assert torch.equal(*tables)


def test_stage_tells_its_objectives_in_order():
    module, probe = Recommender(BPRMF(4)), Probe()
    module.objectives.append(probe)
    module.begin_stage(STAGE, StageSettings(), until(1), 0, 0)
    assert [objective.name for objective in module._objectives()] == ["own", "probe"]
    module.refresh(5)
    module.end_stage()
    assert probe.calls == ["prepare 13", "refresh", "refresh", "finish"]
    assert probe.draws[0] != probe.draws[1]
    again = Probe()
    module.objectives.append(again)
    module.begin_stage(STAGE, StageSettings(), until(1), 0, 0)
    assert again.draws == probe.draws[:1]


def test_further_objectives_take_part_in_every_stage_with_copies_of_their_own():
    probe = Probe()
    module = Recommender(BPRMF(4), objectives=[probe])
    assert [name for name, _ in module.named_parameters()] == ["backbone.user_embedding", "backbone.item_embedding"]
    copies = []
    for index in range(2):
        module.begin_stage(Stage(index, StageKind.BASE), StageSettings(), until(index), 0, 0)
        assert [objective.name for objective in module._objectives()] == ["own", "probe"]
        copies.append(module._objectives()[1])
        module.end_stage()
    assert all(copy.calls[1:] == ["refresh", "finish"] for copy in copies)
    assert copies[0] is not copies[1]
    assert not probe.calls


def test_training_step_is_the_weighted_sum_of_what_looks_at_the_batch():
    module, probe = Recommender(BPRMF(4)), Probe()
    module.objectives.append(probe)
    module.begin_stage(STAGE, StageSettings(batch_size=1000), until(1), 0, 0)
    (batches,) = module.epoch_batches()
    (batch,) = batches
    found = module.training_step(batch, 0)
    expected = module.backbone.loss(batch) + 3.0 * 2.0 * batch.users.numel()
    torch.testing.assert_close(found, expected)


def test_own_parameters_of_objectives_take_part_in_every_step():
    module, probe = Recommender(BPRMF(4)), Probe()
    rankings = Rankings(torch.arange(5).expand(13, 5), torch.zeros(13, 5))
    module.objectives.extend([probe, Replay(ReplayDraw([ReplaySource("proxy", rankings, 2)], 0.1))])
    module.begin_stage(STAGE, StageSettings(batch_size=1000), until(1), 0, 0)
    (batch,) = module.epoch_batches()[1]
    assert isinstance(batch, SoftLabelBatch)
    module.training_step(batch, 0).backward()
    assert probe.own.grad is not None and not probe.own.grad.any()


def test_a_step_propagates_once_for_all_objectives(monkeypatch):
    from ccd_lightning import functional as F

    calls = []
    inner = F.lightgcn_propagation
    monkeypatch.setattr(F, "lightgcn_propagation", lambda *arguments: calls.append(1) or inner(*arguments))
    module = Recommender(LightGCN(4))
    lists = torch.tensor([[0, 1]] * 13)
    excluded = until(1).observed("block")
    module.objectives.append(RankingDistillation(lists, excluded, Side.USER, propagated=True))
    module.begin_stage(STAGE, StageSettings(batch_size=1000), until(1), 0, 0)
    calls.clear()
    module.training_step(next(iter(module.epoch_batches()[0])), 0)
    assert len(calls) == 1


@pytest.mark.parametrize("backbone", [BPRMF, LightGCN, MultVAE])
def test_replay_refreshed_in_an_evaluation_can_be_learned(backbone):
    """Lightning evaluates in inference mode, whose tensors cannot be saved for a gradient."""
    module = Recommender(backbone(4))
    rankings = Rankings(torch.arange(5).expand(13, 5), torch.zeros(13, 5))
    draw = ReplayDraw([ReplaySource("proxy", rankings, 2)], 0.1)
    if backbone is not MultVAE:
        module.objectives.append(Replay(draw))
    module.begin_stage(STAGE, StageSettings(batch_size=64), until(1), 0, 0)
    with torch.inference_mode():
        module.eval()
        module.backbone.scores(torch.arange(13))
        module.refresh(1)
    module.train()
    optimizer = module.configure_optimizers()
    for batches in module.epoch_batches():
        for batch in batches:
            optimizer.zero_grad()
            module.training_step(batch, 0).backward()
            optimizer.step()
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_optimizer_takes_trainable_parameters_and_the_stages_settings():
    module = begun(learning_rate=0.03, weight_decay=0.2, eps=1e-5)
    module.backbone.item_embedding.requires_grad_(False)
    (group,) = module.configure_optimizers().param_groups
    assert [parameter is module.backbone.user_embedding for parameter in group["params"]] == [True]
    assert (group["lr"], group["weight_decay"], group["eps"]) == (0.03, 0.2, 1e-5)


def test_steps_carry_their_own_signatures():
    class Short(Recommender):
        def training_step(self, batch: Any) -> Any:
            return super().training_step(batch, 0)

    class Plain(Recommender):
        pass

    known = {
        kind: list(inspect.getfullargspec(kind(BPRMF(4)).training_step).args) for kind in (Recommender, Short, Plain)
    }
    assert known == {
        Recommender: ["self", "batch", "batch_idx"],
        Short: ["self", "batch"],
        Plain: ["self", "batch", "batch_idx"],
    }
    assert all("__signature__" in vars(kind.training_step) for kind in known)
