from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ccd_lightning.backbones import BPRMF, LightGCN
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.objectives import RankingDistillation, pairs_of_lists
from ccd_lightning.types import ListBatch, RankingBatch, Side, UserBatch

from ..tiny import factorisation, interactions, random_history


class WithoutEmbeddings(BPRMF):
    """The same scores, but only as whole rows."""

    def embeddings(self, propagated=True):
        return None

    def scores(self, users):
        return self.user_embedding[users] @ self.item_embedding.T


def loss_of(scores: list[float], interesting: list[int], uninteresting: list[int], cap: float = 10.0) -> float:
    """The relaxed ranking loss of one row, term by term."""
    capped = [min(value, cap) for value in scores]
    rest = sum(math.exp(capped[item]) for item in uninteresting)
    tails = [sum(math.exp(capped[item]) for item in interesting[place:]) for place in range(len(interesting))]
    return sum(math.log(tail + rest) - capped[item] for tail, item in zip(tails, interesting, strict=True))


def batch_of(users: Tensor) -> RankingBatch:
    return RankingBatch(users, users * 0, users[:, None] * 0, users.numel())


class Case:
    """Golden lists with a student of random embeddings: its loss by hand, and as an objective."""

    def __init__(self, case: dict[str, Tensor], side: Side) -> None:
        scores = case["in_scores"]
        lists = case["out_alt_items_neginf"].long(), case["out_alt_users_neginf"].long()
        allowed = torch.ones_like(scores, dtype=torch.bool)
        allowed[case["in_train_users"], case["in_train_items"]] = False
        allowed.scatter_(1, lists[0], False)
        allowed.T.scatter_(1, lists[1], False)
        self.allowed, self.lists = (allowed, lists[0]) if side is Side.USER else (allowed.T, lists[1])
        shape = tuple(scores.shape)
        observed = PairSet(case["in_train_users"], case["in_train_items"], *shape)
        pairs = pairs_of_lists(lists[0], *shape), pairs_of_lists(lists[1], shape[1], shape[0]).transpose()
        self.excluded = observed.union(*pairs)
        if side is Side.ITEM:
            self.excluded = self.excluded.transpose()
        generator = torch.Generator().manual_seed(0)
        # A few scores lie above the cap.
        self.user, self.item = (2.2 * torch.randn(size, 5, generator=generator) for size in shape)
        self.scores = self.user @ self.item.T if side is Side.USER else self.item @ self.user.T
        self.side = side

    def objective(self, **settings) -> RankingDistillation:
        return RankingDistillation(self.lists, self.excluded, self.side, **settings)

    def expected(self, entities: list[int]) -> float:
        return sum(
            loss_of(self.scores[row].tolist(), self.lists[row].tolist(), self.allowed[row].nonzero()[:, 0].tolist())
            for row in entities
        )


def test_golden_masks_leave_out_the_same_pairs_as_the_release_apart_from_its_lists(golden):
    case = golden("rrd_interesting")
    scores = case["in_scores"]
    users, items = case["out_items"].long(), case["out_users"].long()
    observed = PairSet(case["in_train_users"], case["in_train_items"], *scores.shape)
    # With the release's own lists the same union gives the release's mask.
    excluded = observed.union(
        pairs_of_lists(users, *scores.shape), pairs_of_lists(items, *reversed(scores.shape)).transpose()
    )
    mask = torch.ones(scores.shape, dtype=torch.uint8)
    mask[excluded.rows, excluded.columns] = 0
    assert torch.equal(mask, case["out_uninteresting_mask"])


@pytest.mark.parametrize("side", list(Side))
def test_exact_loss_equals_the_definition_on_dense_scores(golden, side):
    case = Case(golden("rrd_interesting"), side)
    assert (case.scores > 10).any()
    model = factorisation(case.user, case.item)
    entities = torch.tensor([4, 0, 9, 4, 33, 0])
    if side is Side.USER:
        found = case.objective()(model, batch_of(entities))
        torch.testing.assert_close(case.objective()(model, UserBatch(entities.unique(), 4)), found)
    else:
        found = case.objective()(model, ListBatch(entities.unique(), side, 4))
    assert float(found.detach()) == pytest.approx(case.expected([0, 4, 9, 33]), rel=1e-5)


@pytest.mark.parametrize("side", list(Side))
def test_exact_gradients_equal_those_of_dense_scores(golden, side):
    case = Case(golden("rrd_interesting"), side)
    model = factorisation(case.user, case.item)
    entities = torch.arange(20)
    batch = batch_of(entities) if side is Side.USER else ListBatch(entities, side, 20)
    case.objective()(model, batch).backward()
    user, item = (table.double().requires_grad_() for table in (case.user, case.item))
    scores = (user @ item.T if side is Side.USER else item @ user.T)[entities].clamp(max=10)
    rest = scores.exp().masked_fill(~case.allowed[entities], 0).sum(1, keepdim=True)
    interesting = scores.gather(1, case.lists[entities])
    tail = interesting.exp().flip(1).cumsum(1).flip(1)
    ((tail + rest).log() - interesting).sum().backward()
    torch.testing.assert_close(model.user_embedding.grad.double(), user.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.item_embedding.grad.double(), item.grad, rtol=1e-4, atol=1e-4)


def test_models_without_embeddings_have_the_same_loss_and_gradients(golden):
    case = Case(golden("rrd_interesting"), Side.USER)
    models = factorisation(case.user, case.item), WithoutEmbeddings(5)
    models[1].grow(*case.scores.shape, torch.Generator())
    models[1].load_state_dict(models[0].state_dict())
    values = [case.objective()(model, batch_of(torch.arange(30))) for model in models]
    torch.testing.assert_close(values[1], values[0])
    for value in values:
        value.backward()
    for first, second in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(second.grad, first.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [BPRMF, WithoutEmbeddings])
def test_lists_may_end_early_and_rows_may_have_no_rest(kind):
    generator = torch.Generator().manual_seed(1)
    lists = torch.tensor([[2, 0, -1], [1, -1, -1], [-1, -1, -1], [3, 2, 1]])
    excluded = pairs_of_lists(lists, 4, 5).union(PairSet.from_interactions(interactions([(3, 0), (3, 4)]), 4, 5))
    model = kind(3)
    model.grow(4, 5, generator)
    with torch.no_grad():
        for table in model.parameters():
            table.normal_(generator=generator)
    found = RankingDistillation(lists, excluded, Side.USER)(model, batch_of(torch.arange(4)))
    scores = model.scores(torch.arange(4)).tolist()
    expected = (
        loss_of(scores[0], [2, 0], [1, 3, 4])
        + loss_of(scores[1], [1], [0, 2, 3, 4])
        + loss_of(scores[3], [3, 2, 1], [])
    )
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)
    found.backward()
    assert all(table.grad.isfinite().all() for table in model.parameters())


def test_entities_without_a_list_are_left_out(golden):
    case = Case(golden("rrd_interesting"), Side.USER)
    model = factorisation(torch.cat([case.user, case.user]), case.item)
    users = torch.tensor([1, 70, 90])
    found = case.objective()(model, batch_of(users))
    torch.testing.assert_close(found, case.objective()(model, batch_of(users[:1])))


@pytest.mark.parametrize("side", list(Side))
def test_sampled_rest_is_an_unbiased_estimate_of_the_sum(golden, side):
    case = Case(golden("rrd_interesting"), side)
    model = factorisation(case.user / 2.2, case.item / 2.2)
    query, keys = model.embeddings() if side is Side.USER else model.embeddings()[::-1]
    entities = torch.arange(10)
    objective = case.objective(sample=25)
    objective.batches(8, torch.Generator().manual_seed(0))
    with torch.no_grad():
        draws = torch.stack([objective._log_rest(query[entities], keys, entities).exp() for _ in range(2000)]).double()
        exact = case.objective()._log_rest(query[entities], keys, entities).exp().double()
    deviation = draws.std(0) / 2000**0.5
    assert ((draws.mean(0) - exact).abs() < 4.5 * deviation).all()


def test_sample_of_the_whole_catalogue_is_exact(golden):
    case = Case(golden("rrd_interesting"), Side.USER)
    model = factorisation(case.user, case.item)
    found = case.objective(sample=70)(model, batch_of(torch.arange(5)))
    assert float(found.detach()) == pytest.approx(case.expected(list(range(5))), rel=1e-5)


def test_samples_depend_on_the_epochs_generator(golden):
    case = Case(golden("rrd_interesting"), Side.USER)
    model = factorisation(case.user, case.item)
    values = []
    for seed in (0, 0, 1):
        objective = case.objective(sample=9)
        assert objective.batches(8, torch.Generator().manual_seed(seed)) is None
        values.append(float(objective(model, batch_of(torch.arange(9))).detach()))
    assert values[0] == values[1] != values[2]


def test_item_lists_bring_every_item_once(golden):
    case = Case(golden("rrd_interesting"), Side.ITEM)
    batches = list(case.objective().batches(16, torch.Generator().manual_seed(0)))
    assert sorted(item for batch in batches for item in batch.entities.tolist()) == list(range(70))
    assert {batch.side for batch in batches} == {Side.ITEM}
    assert [batch.global_size for batch in batches] == [16, 16, 16, 16, 6]


def test_distillation_takes_the_layer_that_is_asked(golden):
    history = random_history([(8, 9)])
    model = LightGCN(4)
    model.meet(history, "neighbours", 3, torch.Generator().manual_seed(0))
    lists = torch.tensor([[0, 1]] * 8)
    excluded = pairs_of_lists(lists, 8, 9)
    with torch.no_grad():
        for propagated in (False, True):
            user, item = model.embeddings(propagated)
            found = RankingDistillation(lists, excluded, Side.USER, propagated=propagated)(
                model, batch_of(torch.arange(8))
            )
            expected = RankingDistillation(lists, excluded, Side.USER)(
                factorisation(user, item), batch_of(torch.arange(8))
            )
            torch.testing.assert_close(found, expected)


def test_item_lists_are_refused_without_embeddings(golden):
    case = Case(golden("rrd_interesting"), Side.ITEM)
    with pytest.raises(ValueError, match="WithoutEmbeddings has no embeddings, and item lists compare users"):
        case.objective().prepare(WithoutEmbeddings(5))


def test_weight_is_constant(golden):
    objective = Case(golden("rrd_interesting"), Side.USER).objective(weight=0.25)
    assert {objective.weight(epoch) for epoch in range(5)} == {0.25}
    assert objective.name == "user_lists"
