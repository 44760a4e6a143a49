from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from ccd_lightning import functional as F
from ccd_lightning.backbones import BPRMF, Backbone, LightGCN, MultVAE, evaluating
from ccd_lightning.data.history import History

from ..tiny import random_history

SIZES = [(8, 9), (12, 13)]
KINDS = [lambda: BPRMF(4), lambda: LightGCN(4), lambda: MultVAE(4)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def first_of(history: History) -> History:
    return History(history.blocks[:1])


def dense(history: History) -> torch.Tensor:
    pairs = history.observed("block")
    matrix = torch.zeros(pairs.num_rows, pairs.num_columns)
    matrix[pairs.rows, pairs.columns] = 1
    return matrix


@pytest.mark.parametrize("kind", KINDS)
def test_new_rows_are_small_normal_numbers(kind):
    model = kind()
    model.grow(3000, 3000, generator())
    for name in model._sides:
        rows = getattr(model, name).detach()
        assert rows.shape[0] == 3000
        assert float(rows.mean().abs()) < 1e-3
        assert float(rows.std()) == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("kind", [BPRMF, LightGCN])
@pytest.mark.parametrize(("new_rows", "pick"), [("neighbours", 0), ("one_hop", 1)])
def test_meet_begins_new_rows_as_the_formula_says(kind, new_rows, pick):
    history = random_history(SIZES)
    model = kind(4)
    model.meet(first_of(history), new_rows, 3, generator())
    user, item = (table.detach().clone() for table in (model.user_embedding, model.item_embedding))
    model.meet(history, new_rows, 3, generator(1))
    matrix = dense(history)
    for table, old, own, other, rows in (
        (model.user_embedding, 8, user, item, matrix),
        (model.item_embedding, 9, item, user, matrix.T),
    ):
        torch.testing.assert_close(table[old:].detach(), F.init_new_rows(rows, own, other, 3)[pick])
        assert torch.equal(table[:old], own)


def test_tables_without_counterpart_begin_from_two_hops_alone():
    history = random_history(SIZES)
    for new_rows in ("neighbours", "one_hop"):
        model = MultVAE(4)
        model.meet(first_of(history), new_rows, 2, generator())
        old = {name: getattr(model, name).detach().clone() for name in model._sides}
        model.meet(history, new_rows, 2, generator(1))
        for name, rows in old.items():
            expected = F.init_new_rows(dense(history).T, rows.reshape(9, -1), None, 2)[0]
            torch.testing.assert_close(getattr(model, name)[9:].detach(), expected.reshape(4, *rows.shape[1:]))


def test_random_new_rows_come_from_the_generator():
    history = random_history(SIZES)
    models = [BPRMF(4) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        model.meet(first_of(history), "random", 3, generator())
        model.meet(history, "random", 3, generator(seed))
    assert torch.equal(models[0].user_embedding, models[1].user_embedding)
    assert torch.equal(models[0].user_embedding[:8], models[2].user_embedding[:8])
    assert not torch.equal(models[0].user_embedding[8:], models[2].user_embedding[8:])


def test_first_block_is_random_whatever_the_mode():
    history = first_of(random_history(SIZES))
    models = [BPRMF(4), BPRMF(4)]
    for model, mode in zip(models, ("neighbours", "random"), strict=True):
        model.meet(history, mode, 3, generator())
    assert torch.equal(models[0].item_embedding, models[1].item_embedding)


@pytest.mark.parametrize("kind", KINDS)
def test_meeting_a_block_again_changes_nothing(kind):
    history = random_history(SIZES)
    model = kind()
    model.meet(history, "neighbours", 3, generator())
    before = deepcopy(model.state_dict())
    parameters = list(model.parameters())
    model.meet(history, "neighbours", 3, generator(5))
    assert all(found is kept for found, kept in zip(model.parameters(), parameters, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_grow_refuses_to_shrink():
    model = BPRMF(4)
    model.grow(5, 6, generator())
    with pytest.raises(ValueError, match=r"knows 5 users and 6 items and cannot shrink to 4 users and 6 items: pass"):
        model.grow(4, 6, generator())


@pytest.mark.parametrize("kind", KINDS)
def test_growth_keeps_frozen_tables_frozen(kind):
    model = kind().requires_grad_(False)
    model.grow(3, 4, generator())
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_state_of_a_larger_and_of_a_smaller_model_can_be_loaded(kind):
    history = random_history(SIZES)
    small, large = kind(), kind()
    small.meet(first_of(history), "neighbours", 3, generator())
    large.meet(first_of(history), "neighbours", 3, generator(1))
    large.meet(history, "neighbours", 3, generator(2))
    for source, seen in ((large, history), (small, first_of(history))):
        target = deepcopy(large)
        target.load_state_dict(source.state_dict())
        target.observe(seen)
        assert (target.num_users, target.num_items) == SIZES[seen.block.index]
        assert target.known_block == seen.block.index
        users = torch.arange(target.num_users)
        with evaluating(source, target), torch.no_grad():
            torch.testing.assert_close(target.scores(users), source.scores(users))


def test_state_of_another_dimension_is_refused():
    model = BPRMF(4)
    model.grow(3, 3, generator())
    with pytest.raises(RuntimeError, match="size mismatch for user_embedding"):
        BPRMF(5).load_state_dict(model.state_dict())


@pytest.mark.parametrize("momentum", [0.0, 0.3, 1.0])
def test_merge_from_averages_row_by_row_and_keeps_what_the_older_model_lacks(momentum):
    older, newer = BPRMF(3), BPRMF(3)
    older.grow(4, 5, generator(1))
    newer.grow(6, 5, generator(2))
    before = {name: value.detach().clone() for name, value in newer.named_parameters()}
    newer.merge_from(older, momentum)
    for name, value in newer.named_parameters():
        old = getattr(older, name).detach()
        expected = before[name]
        expected[: len(old)] = momentum * old + (1 - momentum) * expected[: len(old)]
        torch.testing.assert_close(value.detach(), expected)


def test_reset_forgets_rows_and_redraws_shared_weights():
    model = MultVAE(16)
    model.meet(random_history(SIZES), "neighbours", 3, generator())
    model.steps += 5
    model.reset(generator(4))
    assert (model.num_users, model.num_items, model.known_block) == (0, 0, -1)
    assert model.encoder.shape == (0, 16)
    assert int(model.steps) == 0
    assert float(model.mean.weight.detach().std()) == pytest.approx(1 / 4, rel=0.15)
    assert not model.mean.bias.any() and not model.encoder_bias.any()
    again = MultVAE(16)
    again.reset(generator(4))
    assert torch.equal(again.mean.weight, model.mean.weight)


def test_evaluating_gives_every_part_its_own_mode_back():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    model[1].eval()
    with evaluating(model, object()):
        assert not any(part.training for part in model.modules())
    assert [part.training for part in model.modules()] == [True, True, False, False]


@pytest.mark.parametrize("kind", [BPRMF, LightGCN])
def test_embedding_backbones_refuse_no_dimensions(kind):
    with pytest.raises(ValueError, match="`dim` is 0, but an embedding needs at least 1 dimension"):
        kind(0)


def test_default_pair_scores_read_the_rows_of_all_scores():
    class Plain(BPRMF):
        pair_scores = Backbone.pair_scores

    model = Plain(4)
    model.grow(6, 5, generator())
    users, items = torch.tensor([3, 0, 3, 5]), torch.tensor([4, 4, 0, 1])
    torch.testing.assert_close(model.pair_scores(users, items), model.scores(users)[torch.arange(4), items])
