from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ccd_lightning.backbones import BPRMF
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.objectives import knowledge, pairs_of_lists, top_items, top_lists, top_overlap

from ..tiny import Scores, interactions, random_pairs

CPU = torch.device("cpu")


def masked(scores: Tensor, observed: PairSet) -> Tensor:
    scores = scores.clone()
    inside = (observed.rows < scores.shape[0]) & (observed.columns < scores.shape[1])
    scores[observed.rows[inside], observed.columns[inside]] = -torch.inf
    return scores


def brute_force(scores: Tensor, number: int) -> list[list[int]]:
    """The best columns of each row by sorting in Python, -1 where nothing is left."""
    lists = []
    for row in scores.tolist():
        order = sorted((column for column, value in enumerate(row) if value > -torch.inf), key=lambda c: -row[c])
        lists.append((order + [-1] * number)[: min(number, len(row))])
    return lists


@pytest.fixture(params=[1, 7, 512])
def chunk(request, monkeypatch) -> int:
    monkeypatch.setattr(knowledge, "CHUNK", request.param)
    return int(request.param)


def observed_pairs(shape: tuple[int, int], share: float, seed: int = 1) -> PairSet:
    pairs = random_pairs(shape, int(shape[0] * shape[1] * share), seed)
    return PairSet.from_interactions(interactions(pairs), *shape)


def test_golden_lists_of_both_sides(golden, chunk):
    case = golden("rrd_interesting")
    shape = tuple(case["in_scores"].shape)
    observed = PairSet(case["in_train_users"], case["in_train_items"], *shape)
    users, items = top_lists(Scores(case["in_scores"]), int(case["in_k"]), observed, CPU)
    assert torch.equal(users, case["out_alt_items_neginf"].long())
    assert torch.equal(items, case["out_alt_users_neginf"].long())
    assert torch.equal(top_items(Scores(case["in_scores"]), int(case["in_k"]), observed, CPU).items, users)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("number", [1, 5, 50])
def test_lists_equal_sorting_of_masked_scores(chunk, share, number):
    scores = torch.randn(20, 13, generator=torch.Generator().manual_seed(0))
    observed = observed_pairs((20, 13), share)
    users, items = top_lists(Scores(scores), number, observed, CPU)
    expected = masked(scores, observed)
    assert users.tolist() == brute_force(expected, number)
    assert items.tolist() == brute_force(expected.T, number)
    found = top_items(Scores(scores), number, observed, CPU)
    assert torch.equal(found.items, users)
    listed = users >= 0
    assert torch.equal(found.scores[listed], scores.gather(1, users.clamp_min(0))[listed])
    assert not found.scores[~listed].any()


def test_lists_of_some_users_are_those_of_everybody(chunk):
    scores = torch.randn(20, 13, generator=torch.Generator().manual_seed(0))
    observed = observed_pairs((20, 13), 0.4)
    whole = top_items(Scores(scores), 5, observed, CPU)
    # In any order, and some whom the model does not know.
    asked = torch.tensor([17, 3, 25, 4, 20])
    some = top_items(Scores(scores), 5, observed, CPU, asked)
    ranked = torch.zeros(20, dtype=torch.bool).index_fill_(0, torch.tensor([17, 3, 4]), True)
    assert torch.equal(some.items[ranked], whole.items[ranked])
    assert torch.equal(some.scores[ranked], whole.scores[ranked])
    assert (some.items[~ranked] == -1).all()
    assert not some.scores[~ranked].any()
    everybody = whole.pairs(20, 13)
    assert torch.equal(some.pairs(20, 13).columns, everybody.columns[ranked[everybody.rows]])


def test_lists_of_a_model_that_knows_less_than_was_observed(chunk):
    scores = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    observed = observed_pairs((20, 13), 0.4)
    users, items = top_lists(Scores(scores), 4, observed, CPU)
    assert users.tolist() == brute_force(masked(scores, observed), 4)
    assert items.tolist() == brute_force(masked(scores, observed).T, 4)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("number", [1, 5, 50])
def test_overlap_counts_the_places_that_two_models_share(chunk, share, number):
    # The models know different users and items, as teachers do that learn more seldom than the student.
    shapes = ((20, 13), (17, 15))
    first, second = (torch.randn(*shape, generator=torch.Generator().manual_seed(shape[0])) for shape in shapes)
    seen = observed_pairs((20, 15), share)
    lists = [[set(row) - {-1} for row in brute_force(masked(scores, seen), number)] for scores in (first, second)]
    both = list(zip(*lists, strict=False))
    expected = sum(len(one & other) for one, other in both) / sum(len(one) for one, _ in both)
    assert top_overlap(Scores(first), Scores(second), number, seen, CPU) == pytest.approx(expected, abs=1e-12)
    assert top_overlap(Scores(first), Scores(3 * first + 1), number, seen, CPU) == 1.0
    asked = [2, 11, 19, 5]
    some = [both[user] for user in asked if user < len(both)]
    expected = sum(len(one & other) for one, other in some) / sum(len(one) for one, _ in some)
    found = top_overlap(Scores(first), Scores(second), number, seen, CPU, torch.tensor(asked))
    assert found == pytest.approx(expected, abs=1e-12)


def test_overlap_of_nobody_is_zero():
    nothing = PairSet(*interactions([]), 0, 4)
    assert top_overlap(Scores(torch.empty(0, 4)), Scores(torch.empty(0, 4)), 2, nothing, CPU) == 0.0


def test_scores_that_are_no_numbers_are_never_listed():
    scores = torch.tensor([[torch.nan, 1.0, torch.nan, 2.0]])
    nothing = PairSet(*interactions([]), 1, 4)
    assert top_items(Scores(scores), 3, nothing, CPU).items.tolist() == [[3, 1, -1]]
    assert top_lists(Scores(scores), 3, nothing, CPU)[1].tolist() == [[-1], [0], [-1], [0]]


def test_rankings_become_pairs_without_padding():
    lists = torch.tensor([[3, 1, -1], [-1, -1, -1], [0, 2, 3]])
    pairs = pairs_of_lists(lists, 4, 5)
    assert list(zip(pairs.rows.tolist(), pairs.columns.tolist(), strict=True)) == [
        (0, 1),
        (0, 3),
        (2, 0),
        (2, 2),
        (2, 3),
    ]
    found = knowledge.Rankings(lists, lists.float())
    assert found.best(1).pairs(3, 4).size == 2


def test_rankings_are_taken_in_evaluation_mode():
    class Dropping(BPRMF):
        def __init__(self):
            super().__init__(4)
            self.drop = nn.Dropout(0.5)

        def scores(self, users):
            return self.drop(super().scores(users))

    model = Dropping()
    model.grow(10, 12, torch.Generator().manual_seed(0))
    nothing = PairSet(*interactions([]), 10, 12)
    found = top_items(model, 12, nothing, CPU).items
    assert torch.equal(found, top_items(model, 12, nothing, CPU).items)
    assert model.drop.training


def test_score_keys_order_by_score_and_then_by_user() -> None:
    values = torch.tensor([[0.0, -0.0, 1.5, -2.0, 1.5, 3e38, -3e38, 1e-40, -torch.inf, 7.0]])
    users = torch.tensor([[5, 4, 9, 1, 8, 0, 2, 3, 7, 4_000_000_000]])
    found = knowledge._users_of(knowledge._score_keys(values, users).sort(dim=1, descending=True).values)
    pairs = sorted(zip((-values[0]).tolist(), users[0].tolist(), strict=True))
    assert found[0].tolist() == [-1 if value == torch.inf else user for value, user in pairs]
