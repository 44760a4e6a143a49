"""The contract passes for the library's backbones, and names what is wrong with broken ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ccd_lightning import _contract as tiny
from ccd_lightning import testing
from ccd_lightning.backbones import BPRMF, Backbone, LightGCN, MultVAE
from ccd_lightning.testing import BackboneContractError, check_backbone
from ccd_lightning.types import RankingBatch, Side, UserBatch


class Bias(Backbone):
    """A user's own backbone: nothing but the popularity of items, and a learned scale of it."""

    batch_type = UserBatch

    def __init__(self):
        super().__init__()
        self.add_rows("bias", Side.ITEM)
        self.scale = nn.Parameter(torch.ones(()))
        self.rows = None

    def observe(self, history):
        self.rows = history.observed("block")

    def scores(self, users):
        return (self.scale * self.bias).expand(users.shape[0], -1)

    def loss(self, batch):
        rows, items = self.rows.of(batch.users)
        return -self.scores(batch.users).log_softmax(-1)[rows, items].sum() / batch.global_size


@pytest.mark.parametrize(
    "factory",
    [
        lambda: BPRMF(4),
        lambda: LightGCN(4, graph="block"),
        lambda: LightGCN(4, graph="cumulative"),
        lambda: LightGCN(4, graph="fold"),
        lambda: LightGCN(4, num_layers=0),
        lambda: MultVAE(4),
        lambda: MultVAE(4, history="block"),
        Bias,
    ],
)
def test_contract_passes_for_sound_backbones(factory):
    check_backbone(factory)


class CountsWithPython(Bias):
    def scores(self, users):
        return (self.scale * self.bias).expand(len(users), -1)


class BranchesOnUsers(Bias):
    def scores(self, users):
        scale = self.scale if not users.numel() or users.max() > 3 else self.scale * 1
        return (scale * self.bias).expand(users.shape[0], -1)


class HasNoOnnx(Bias):
    def scores(self, users):
        # ONNX has no word for the error function's inverse.
        return (self.scale * self.bias.tanh().erfinv()).expand(users.shape[0], -1)


class ForgetsOffsets(BPRMF):
    def factors(self):
        return *self.embeddings(), torch.ones(self.num_items)


class KnowsSomebody(BPRMF):
    def __init__(self):
        super().__init__(4)
        self.grow(1, 1, torch.Generator())


class RedrawsOldRows(BPRMF):
    def grow(self, num_users, num_items, generator):
        super().grow(num_users, num_items, generator)
        nn.init.normal_(self.user_embedding, generator=generator)


class DrawsFromTheGlobalGenerator(BPRMF):
    def grow(self, num_users, num_items, generator):
        super().grow(num_users, num_items, torch.default_generator)


class Shrinks(BPRMF):
    def grow(self, num_users, num_items, generator):
        if num_users < self.num_users:
            self.user_embedding = nn.Parameter(self.user_embedding[:num_users].detach())
            self.item_embedding = nn.Parameter(self.item_embedding[:num_items].detach())
            self.num_users, self.num_items = num_users, num_items
        super().grow(num_users, num_items, generator)


class ScoresOneItemLess(BPRMF):
    def scores(self, users):
        return super().scores(users)[:, 1:]


class ScoresOneByOne(BPRMF):
    def scores(self, users):
        return torch.stack([super(ScoresOneByOne, self).scores(user[None])[0] for user in users])


class ScoresInfinity(BPRMF):
    def scores(self, users):
        return super().scores(users).index_fill(1, torch.tensor([0]), -torch.inf)


class Noisy(BPRMF):
    def scores(self, users):
        return super().scores(users) + torch.rand(1)


class NormalisesOverTheBatch(BPRMF):
    def scores(self, users):
        scores = super().scores(users)
        return scores - scores.mean(0) + users.float().mean()


class WrongPairs(BPRMF):
    def pair_scores(self, users, items):
        return 2 + super().pair_scores(users, items)


class WrongEmbeddings(BPRMF):
    def scores(self, users):
        return super().scores(users) + 1.0

    def pair_scores(self, users, items):
        return super().pair_scores(users, items) + 1.0


class LossOfRows(BPRMF):
    def loss(self, batch):
        return super().loss(batch).expand(3)


class DetachedLoss(BPRMF):
    def loss(self, batch):
        return super().loss(batch).detach()


class IdleParameter(BPRMF):
    def __init__(self):
        super().__init__(4)
        self.idle = nn.Parameter(torch.zeros(2))


class MeanLoss(BPRMF):
    def loss(self, batch):
        return super().loss(batch) / max(len(batch.users), 1)


class WrongSign(BPRMF):
    def loss(self, batch):
        return -super().loss(batch)


class Constant(BPRMF):
    def loss(self, batch):
        value = 0.0 * (self.user_embedding.sum() + self.item_embedding.sum())
        return value + len(batch.users) / batch.global_size


class RemembersScores(BPRMF):
    def scores(self, users):
        if not torch.is_grad_enabled():
            if not hasattr(self, "kept"):
                self.kept = (self.user_embedding @ self.item_embedding.T).clone()
            return self.kept[users]
        return super().scores(users)

    def observe(self, history):
        if hasattr(self, "kept"):
            del self.kept

    def pair_scores(self, users, items):
        return self.scores(users)[torch.arange(len(users)), items]


class LeavesNewRowsRandom(BPRMF):
    def meet(self, history, new_rows, topk, generator):
        super().meet(history, "random", topk, generator)


class FixedSize(Bias):
    def observe(self, history):
        super().observe(history)
        if not hasattr(self, "weights"):
            self.weights = torch.rand(history.block.num_items, generator=torch.Generator().manual_seed(0))

    def scores(self, users):
        return super().scores(users)[:, : len(self.weights)] * self.weights


class PlainTable(Bias):
    """Its second table is a parameter, but not one that grows."""

    def observe(self, history):
        super().observe(history)
        known = getattr(self, "table", torch.zeros(0))
        rows = torch.zeros(history.block.num_items)
        rows[: len(known)] = known.detach()[: len(rows)]
        self.table = nn.Parameter(rows)

    def scores(self, users):
        return super().scores(users) + self.table


class ForgetsOnSaving(Bias):
    def __init__(self):
        super().__init__()
        self.seen = 0.0

    def meet(self, history, new_rows, topk, generator):
        super().meet(history, new_rows, topk, generator)
        self.seen += 1.0

    def scores(self, users):
        return super().scores(users) + self.seen


class SharesItsCopies(BPRMF):
    def __deepcopy__(self, memo: dict[int, Any]):
        return self


class KeepsSomething(Bias):
    def __init__(self):
        super().__init__()
        self.steps = 0

    def loss(self, batch):
        self.steps += self.training
        return super().loss(batch)

    def observe(self, history):
        super().observe(history)
        if history.block.index:
            self.steps = 0

    def scores(self, users):
        return super().scores(users) + 0.0 * self.steps

    def reset(self, generator):
        scale = self.scale.detach().clone()
        super().reset(generator)
        with torch.no_grad():
            self.scale.copy_(scale)


class StaysBig(BPRMF):
    def reset(self, generator):
        with torch.no_grad():
            self.user_embedding.normal_(generator=generator)


BROKEN = [
    (KnowsSomebody, r"start: sizes and block are \(1, 1, -1\)"),
    (RedrawsOldRows, "growth: old rows of `user_embedding` changed. Append new rows"),
    (DrawsFromTheGlobalGenerator, "growth: new rows of `user_embedding` are not reproducible. Draw new rows from the"),
    (Shrinks, r"shrinking: a model of \(16, 13\) users and items took \(12, 10\). Raise a ValueError"),
    (ScoresOneItemLess, r"scores: for 3 users and 10 items they have shape \(3, 9\).*one column an item"),
    (ScoresInfinity, "scores: some are infinite or NaN"),
    (Noisy, "scores: two calls differ. Draw no noise"),
    (NormalisesOverTheBatch, "scores: a user's row depends on the other users"),
    (ScoresOneByOne, r"scores: a batch of no users fails \(stack expects.* a process may have none left"),
    (WrongPairs, "pair_scores: they differ from the rows of all scores"),
    (WrongEmbeddings, "embeddings: their products are not the scores"),
    (LossOfRows, r"loss: its shape is \(3,\) .* Return a finite scalar"),
    (DetachedLoss, "loss: it has no gradient"),
    (IdleParameter, r"loss: no gradient reaches \['idle'\]"),
    (MeanLoss, "loss: a batch has loss .* but its parts .* divide their sum by `batch.global_size`"),
    (WrongSign, r"loss: as it fell, observed items' lead in the scores went from .* to -.* Check its sign"),
    (Constant, "loss: 60 steps of Adam led from 1 to 1. Check that it depends on the parameters"),
    (RemembersScores, "scores: after a training step they are outdated. Drop in `shared`"),
    (LeavesNewRowsRandom, "second block: new rows of .* stayed random. Register every table"),
    (FixedSize, r"second block: scores of everybody have shape \(16, 10\) .* Renew in `observe`"),
    (PlainTable, r"state: a new model cannot load it \(Error.* Unexpected key.*in tables of `add_rows`"),
    (ForgetsOnSaving, "state: restored scores differ"),
    (SharesItsCopies, "growth: .* are not reproducible|copy: training a copy changed the original"),
    (KeepsSomething, "reset: a trace of the past is left in the scores"),
    (CountsWithPython, r"export: `scores` of CountsWithPython cannot be traced .*`users.shape\[0\]` in place of `len"),
    (BranchesOnUsers, r"export: `scores` of BranchesOnUsers cannot be traced .*let no .*`if` depend on the users"),
    (HasNoOnnx, r"export: ONNX has no way to say what `scores` of HasNoOnnx does .*Use other torch operations"),
    (ForgetsOffsets, "export: the tables of `factors` do not give the scores. Let `factors` .* say what `scores` does"),
    (StaysBig, r"reset: sizes and block are \(12, 10, 0\), not \(0, 0, -1\). Call `super\(\).reset`"),
]


@pytest.mark.parametrize(("broken", "message"), BROKEN, ids=[kind.__name__ for kind, _ in BROKEN])
def test_contract_names_what_is_broken(broken, message):
    def factory():
        return broken(4) if broken.__init__ is BPRMF.__init__ else broken()

    with pytest.raises(BackboneContractError, match=message):
        check_backbone(factory)


def test_contract_without_onnx_asks_for_a_trace_alone(monkeypatch):
    monkeypatch.setattr(testing, "missing_packages", lambda: ["onnxscript"])
    check_backbone(HasNoOnnx)
    with pytest.raises(BackboneContractError, match=r"cannot be traced by torch\.export"):
        check_backbone(CountsWithPython)


def test_contract_names_methods_that_are_missing():
    class WithoutScores(Backbone):
        def loss(self, batch: RankingBatch) -> torch.Tensor:
            return torch.zeros(())

    with pytest.raises(BackboneContractError, match=r"start: this is an instance of BPRMF. Pass the class"):
        check_backbone(BPRMF(4))
    with pytest.raises(BackboneContractError, match=r"start: WithoutScores lacks `scores`\. Define it"):
        check_backbone(WithoutScores)


def test_contract_refuses_what_is_no_backbone():
    with pytest.raises(BackboneContractError, match=r"start: Linear is no `Backbone`\. Derive it from that"):
        check_backbone(lambda: nn.Linear(2, 2))


def test_tiny_stream_can_be_learned_and_has_new_entities_with_old_neighbours():
    present = tiny.history(1).block
    assert (present.num_users, present.num_items) == tiny.SIZES[1]
    meets_old = present.train.items[present.train.users >= present.num_old_users] < present.num_old_items
    assert meets_old.any()
    batch = tiny.batch_of(BPRMF(2))
    observed = tiny.history(0).observed("block")
    assert observed.contains(batch.users, batch.positives).all()
    assert not observed.contains(batch.users, batch.negatives[:, 0]).any()
