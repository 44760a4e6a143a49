from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from ccd_lightning.backbones import MultVAE
from ccd_lightning.data.history import History
from ccd_lightning.objectives import OutputImitation
from ccd_lightning.types import UserBatch

from ..tiny import random_history

SIZES = [(8, 9), (12, 13)]


@pytest.fixture
def history() -> History:
    return random_history(SIZES)


@pytest.fixture
def old(history) -> MultVAE:
    model = MultVAE(4)
    model.meet(History(history.blocks[:1]), "neighbours", 3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    return model


def imitation(old: MultVAE, history: History) -> OutputImitation:
    return OutputImitation(deepcopy(old), History(history.blocks[:1]).observed("cumulative"), weight=0.3)


def divergence(before: Tensor, present: Tensor, common: list[int]) -> float:
    """Of one row, where all but the common items are one outcome."""
    p, q = (torch.softmax(row.double(), 0).tolist() for row in (before, present))
    outcomes = [(p[item], q[item]) for item in common]
    others = [item for item in range(len(p)) if item not in common]
    if others:
        outcomes.append((sum(p[item] for item in others), sum(q[item] for item in others)))
    return sum(a * math.log(a / b) for a, b in outcomes)


def test_imitation_is_zero_while_nothing_changes(old, history):
    found = imitation(old, history)(old.eval(), UserBatch(torch.arange(8), 8))
    assert float(found.detach()) == pytest.approx(0.0, abs=1e-6)


def test_imitation_equals_the_definition_on_old_users_and_old_items(old, history):
    present = deepcopy(old)
    present.meet(history, "neighbours", 3, torch.Generator().manual_seed(2))
    with torch.no_grad():
        present.decoder.add_(torch.randn(present.decoder.shape, generator=torch.Generator().manual_seed(3)))
    users = torch.tensor([11, 2, 7, 0, 9])
    objective = imitation(old, history)
    found = objective(present, UserBatch(users, 10))
    common = history.blocks[0].train
    before = old.scores(torch.arange(8)).detach()
    after = present.scores(torch.arange(8)).detach()[:, :9]
    rows = [divergence(before[user], after[user], common.items[common.users == user].tolist()) for user in (2, 7, 0)]
    assert float(found.detach()) == pytest.approx(sum(rows) / 10, rel=1e-5)
    assert found > 0
    assert objective.weight(7) == 0.3


def test_imitation_is_never_negative_and_leads_back(old, history):
    objective = imitation(old, history)
    present = deepcopy(old).requires_grad_(True).eval()
    batch = UserBatch(torch.arange(8), 8)
    with torch.no_grad():
        for parameter in present.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    optimizer = torch.optim.Adam(present.parameters(), lr=0.03)
    values = []
    for _ in range(200):
        loss = objective(present, batch)
        values.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert min(values) >= -1e-6
    assert values[-1] < 0.05 * values[0]


def test_rows_with_every_item_or_none_in_common_have_finite_gradients(old):
    from ccd_lightning.data.pairs import PairSet

    every = torch.cartesian_prod(torch.tensor([0]), torch.arange(9))
    objective = OutputImitation(deepcopy(old), PairSet(every[:, 0], every[:, 1], 8, 9))
    present = deepcopy(old)
    with torch.no_grad():
        present.decoder.mul_(2)
    loss = objective(present, UserBatch(torch.tensor([0, 1]), 2))
    loss.backward()
    expected = divergence(
        old.scores(torch.tensor([0]))[0].detach(), present.scores(torch.tensor([0]))[0].detach(), list(range(9))
    )
    assert float(loss.detach()) == pytest.approx(expected / 2, rel=1e-4)
    assert all(parameter.grad.isfinite().all() for parameter in present.parameters() if parameter.grad is not None)


def test_parts_of_a_batch_add_up_also_without_old_users(old, history):
    present = deepcopy(old)
    present.meet(history, "neighbours", 3, torch.Generator().manual_seed(2))
    objective = imitation(old, history)
    users = torch.tensor([11, 2, 7, 0, 9])
    parts = [objective(present, UserBatch(users[rows], 5)) for rows in (slice(0, 1), slice(1, 3), slice(3, 5))]
    torch.testing.assert_close(sum(parts), objective(present, UserBatch(users, 5)))
    assert not parts[0].detach()


def test_old_model_neither_learns_nor_drops(old, history):
    class Dropping(MultVAE):
        def __init__(self):
            super().__init__(4)
            self.drop = nn.Dropout(0.5)

        def scores(self, users):
            return self.drop(super().scores(users))

    model = Dropping()
    model.grow(*SIZES[0], torch.Generator())
    model.load_state_dict(old.state_dict())
    model.observe(History(history.blocks[:1]))
    objective = imitation(model, history).train()
    values = {float(objective(old, UserBatch(torch.arange(8), 8)).detach()) for _ in range(3)}
    assert len(values) == 1
    assert not any(parameter.requires_grad for parameter in objective.old.parameters())
