from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from ccd_lightning import distributed
from ccd_lightning.backbones import BPRMF, MultVAE, evaluating
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.objectives import Rankings, Replay, ReplayDraw, ReplaySource, SoftPositives, replay, top_items
from ccd_lightning.types import SoftLabelBatch, UserBatch

from ..tiny import Scores, factorisation, interactions, random_history, random_pairs


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def source_of(scores: Tensor, observed: PairSet, top_n: int, samples: int) -> ReplaySource:
    return ReplaySource("proxy", top_items(Scores(scores), top_n, observed, torch.device("cpu")), samples)


@pytest.fixture
def observed() -> PairSet:
    return PairSet.from_interactions(interactions(random_pairs((12, 20), 60, 1)), 12, 20)


@pytest.fixture
def model() -> BPRMF:
    """The learning model has grown by two users and three items."""
    return factorisation(torch.randn(14, 4, generator=generator(2)), torch.randn(23, 4, generator=generator(3)))


@pytest.mark.parametrize("samples", [1, 3, 6])
def test_draw_takes_distinct_unobserved_top_items_of_every_user(observed, model, samples):
    scores = torch.randn(12, 20, generator=generator())
    draw = ReplayDraw([source_of(scores, observed, 6, samples)], eps=0.01)
    users, items, labels = draw(model, generator(5))
    masked = scores.clone()
    masked[observed.rows, observed.columns] = -torch.inf
    for user in range(12):
        drawn = items[users == user].tolist()
        best = masked[user].argsort(descending=True)[:6].tolist()
        assert len(drawn) == len(set(drawn)) == samples
        assert set(drawn) <= set(best)
        assert labels[users == user].tolist() == pytest.approx(scores[user, drawn].sigmoid().tolist())
    assert draw.counts == {"proxy": 12 * samples}


def test_draw_gives_what_there_is_where_rankings_end(model):
    rankings = Rankings(torch.tensor([[4, -1, -1], [-1, -1, -1], [1, 2, 0]]), torch.zeros(3, 3))
    users, items, _ = ReplayDraw([ReplaySource("proxy", rankings, 2)], eps=0.1)(model, generator())
    assert users.tolist().count(0) == 1 and items[users == 0].tolist() == [4]
    assert not (users == 1).any()
    assert (users == 2).sum() == 2


def test_larger_label_of_several_sources_wins(model):
    high = Rankings(torch.tensor([[3]]), torch.tensor([[2.0]]))
    low = Rankings(torch.tensor([[3], [5]]), torch.tensor([[-1.0], [0.0]]))
    for sources in ([high, low], [low, high]):
        draw = ReplayDraw([ReplaySource(str(place), rankings, 1) for place, rankings in enumerate(sources)], eps=0.0)
        users, items, labels = draw(model, generator())
        assert (users.tolist(), items.tolist()) == ([0, 1], [3, 5])
        assert labels.tolist() == pytest.approx([1 / (1 + math.exp(-2.0)), 0.5])


def counts_of_first_draws(draw: ReplayDraw, model: BPRMF, user: int, items: list[int], draws: int) -> list[int]:
    counts = dict.fromkeys(items, 0)
    shared = generator(11)
    for _ in range(draws):
        users, drawn, _ = draw(model, shared)
        counts[int(drawn[users == user][0])] += 1
    return [counts[item] for item in items]


@pytest.mark.parametrize("eps", [0.0, 0.15])
def test_draws_follow_the_exponential_of_the_rank_discrepancy(model, eps):
    listed = [7, 0, 21, 3, 12]
    rankings = Rankings(torch.tensor([listed]), torch.zeros(1, 5))
    draw = ReplayDraw([ReplaySource("proxy", rankings, 1)], eps)
    order = model.scores(torch.tensor([0]))[0].argsort(descending=True).tolist()
    weights = [math.exp(eps * (order.index(item) - place)) for place, item in enumerate(listed)]
    counts = counts_of_first_draws(draw, model, 0, listed, 3000)
    expected = [3000 * weight / sum(weights) for weight in weights]
    assert chisquare(counts, expected).pvalue > 1e-3


def test_draw_depends_on_the_generator_and_not_on_the_chunk(observed, model):
    scores = torch.randn(12, 20, generator=generator())
    found = [
        ReplayDraw([source_of(scores, observed, 9, 3)], 0.05, chunk)(model, generator(seed))
        for chunk, seed in ((512, 1), (5, 1), (512, 2))
    ]
    assert all(torch.equal(first, second) for first, second in zip(found[0], found[1], strict=True))
    assert not torch.equal(found[0][1], found[2][1])


def test_ranks_of_several_processes_add_up(observed, model, monkeypatch):
    items = top_items(Scores(torch.randn(12, 20, generator=generator())), 9, observed, torch.device("cpu")).items
    draw = ReplayDraw([], 0.1, chunk=4)
    (whole,) = draw._model_ranks(model, [items])
    monkeypatch.setattr(replay, "share_rows", lambda table: table)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "process_rank", lambda rank=rank: rank)
        parts += draw._model_ranks(model, [items])
    assert torch.equal(parts[0] + parts[1], whole)
    order = model.scores(torch.arange(12)).argsort(1, descending=True)
    assert torch.equal(whole.long(), order.argsort(1).gather(1, items))


def test_lists_of_several_sources_are_ranked_in_one_pass_over_the_users(model, monkeypatch):
    shapes = [(12, 7), (5, 9), (0, 2), (12, 1)]
    lists = [torch.randint(-1, 20, shape, generator=generator(place)) for place, shape in enumerate(shapes)]
    order = model.scores(torch.arange(12)).argsort(1, descending=True)
    asked: list[int] = []
    scores = model.scores
    monkeypatch.setattr(model, "scores", lambda users: asked.extend(users.tolist()) or scores(users))
    found = ReplayDraw([], 0.1, chunk=4)._model_ranks(model, lists)
    assert sorted(asked) == list(range(12))
    for ranks, items in zip(found, lists, strict=True):
        expected = order.argsort(1)[: len(items)].gather(1, items.clamp_min(0))
        assert torch.equal(ranks.long()[items >= 0], expected[items >= 0])


def test_sources_without_samples_are_left_out(model):
    rankings = Rankings(torch.tensor([[3]]), torch.tensor([[2.0]]))
    draw = ReplayDraw([ReplaySource("proxy", rankings, 0)], eps=0.1)
    assert draw.sources == []
    assert [column.numel() for column in draw(model, generator())] == [0, 0, 0]
    objective = Replay(draw)
    objective.refresh(model, generator())
    assert objective.batches(4, generator()) is None


def test_replay_brings_every_pair_once_in_an_order_of_the_epoch(observed, model):
    objective = Replay(ReplayDraw([source_of(torch.randn(12, 20, generator=generator()), observed, 9, 3)], 0.05))
    assert objective.batches(4, generator()) is None
    objective.refresh(model, generator(1))
    epochs = [list(objective.batches(8, generator(seed))) for seed in (0, 0, 1)]
    pairs = [
        [pair for batch in epoch for pair in zip(batch.users.tolist(), batch.items.tolist(), strict=True)]
        for epoch in epochs
    ]
    assert pairs[0] == pairs[1] != pairs[2]
    assert sorted(pairs[0]) == sorted(pairs[2])
    assert len(set(pairs[0])) == len(pairs[0]) == 36


def test_replay_loss_is_the_binary_cross_entropy_of_soft_labels(model):
    users, items = torch.tensor([0, 13, 4]), torch.tensor([22, 0, 7])
    labels = torch.tensor([0.9, 0.2, 0.5])
    objective = Replay(ReplayDraw([], 0.1))
    found = objective(model, SoftLabelBatch(users, items, labels, 3))
    expected = 0.0
    for user, item, label in zip(users.tolist(), items.tolist(), labels.tolist(), strict=True):
        chance = 1 / (1 + math.exp(-float((model.user_embedding[user] @ model.item_embedding[item]).detach())))
        expected -= label * math.log(chance) + (1 - label) * math.log(1 - chance)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)


def test_replay_can_be_learned_from_pairs_that_were_drawn_in_an_evaluation(observed, model):
    objective = Replay(ReplayDraw([source_of(torch.randn(12, 20, generator=generator()), observed, 9, 3)], 0.05))
    with torch.inference_mode():
        objective.refresh(model, generator(1))
    for batch in objective.batches(8, generator()):
        objective(model, batch).backward()
    assert model.user_embedding.grad is not None


@pytest.mark.parametrize(("scale", "decay"), [(0.5, 10.0), (2.0, 5.0)])
def test_replay_weight_falls_by_e_in_the_decay(scale, decay):
    objective = Replay(ReplayDraw([], 0.1), scale, decay)
    for epoch in (0, 1, 7, 30):
        assert objective.weight(epoch) == pytest.approx(scale * math.exp(-epoch / decay))


def auto_encoder() -> MultVAE:
    model = MultVAE(4)
    model.meet(random_history([(12, 20)]), "neighbours", 3, generator())
    return model


def test_soft_positives_enter_the_input_rows_until_the_stage_ends(observed):
    model = auto_encoder()
    rankings = Rankings(torch.arange(20).expand(12, 20), torch.zeros(12, 20))
    objective = SoftPositives(ReplayDraw([ReplaySource("student", rankings, 5)], eps=0.1), torch.arange(12))
    objective.refresh(model, generator(1))
    users, items, _ = objective.draw(model, generator(1))
    free = ~model._rows.contains(users, items)
    positions, columns, values = model.input_rows(torch.arange(12))
    soft = values < 1
    assert set(zip(positions[soft].tolist(), columns[soft].tolist(), strict=True)) == set(
        zip(users[free].tolist(), items[free].tolist(), strict=True)
    )
    assert values[soft].unique().tolist() == pytest.approx([0.1])
    objective.finish(model)
    assert (model.input_rows(torch.arange(12))[2] == 1).all()


def test_draw_ranks_by_what_was_observed_and_not_by_earlier_soft_positives():
    model = auto_encoder().train()
    rankings = Rankings(torch.arange(20).expand(12, 20), torch.zeros(12, 20))
    objective = SoftPositives(ReplayDraw([ReplaySource("student", rankings, 5)], eps=0.1), torch.arange(12))
    before = objective.draw._model_ranks(model, [rankings.items])[0]
    objective.refresh(model, generator(1))
    assert torch.equal(objective.draw._model_ranks(model, [rankings.items])[0], before)
    assert model.training


def test_soft_positives_are_refused_by_other_models(model):
    with pytest.raises(ValueError, match="BPRMF takes no soft positives: use `Replay` for it"):
        SoftPositives(ReplayDraw([], 0.1), torch.arange(0)).refresh(model, generator())


@pytest.mark.parametrize("active", [[], [3, 1, 3], range(12)])
def test_users_whom_the_own_loss_leaves_out_come_in_batches_of_their_own(active):
    model = auto_encoder()
    rankings = Rankings(torch.arange(20).expand(12, 20), torch.zeros(12, 20))
    draw = ReplayDraw([ReplaySource("student", rankings, 5)], eps=0.1)
    objective = SoftPositives(draw, torch.tensor(list(active), dtype=torch.long))
    objective.refresh(model, generator(1))
    orders = []
    for epoch in (0, 1):
        batches = list(objective.batches(5, generator(epoch)) or [])
        assert all(isinstance(batch, UserBatch) and batch.users.numel() <= 5 for batch in batches)
        orders.append([user for batch in batches for user in batch.users.tolist()])
        assert sorted(orders[-1]) == sorted(set(range(12)) - set(active))
    assert orders[0] != orders[1] or not orders[0]


def test_a_user_without_interactions_in_the_block_learns_what_is_replayed():
    model = auto_encoder().train()
    rankings = Rankings(torch.arange(20).expand(12, 20), torch.zeros(12, 20))
    objective = SoftPositives(ReplayDraw([ReplaySource("student", rankings, 5)], eps=0.1), torch.arange(11))
    objective.refresh(model, generator(1))
    (batch,) = objective.batches(5, generator(0))
    assert batch.users.tolist() == [11]
    users, items = objective._pairs
    free = ~model._rows.contains(torch.full((20,), 11), torch.arange(20))
    replayed = torch.isin(torch.arange(20), items[users == 11]) & free
    assert 0 < int(replayed.sum()) < int(free.sum())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)

    def share() -> float:
        with evaluating(model), torch.no_grad():
            odds = model.scores(batch.users)[0].exp()
            return float(odds[replayed].sum() / odds[free].sum())

    before = share()
    for _ in range(20):
        optimizer.zero_grad()
        model.loss(batch).backward()
        optimizer.step()
    assert share() > 1.5 * before
