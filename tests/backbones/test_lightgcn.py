from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from ccd_lightning import functional as F
from ccd_lightning.backbones import LightGCN
from ccd_lightning.data.history import History
from ccd_lightning.types import RankingBatch

from ..tiny import block, random_history

SIZES = [(8, 9), (12, 13), (13, 15)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def until(history: History, last: int) -> History:
    return History(history.blocks[: last + 1])


def with_large_rows(model: LightGCN) -> LightGCN:
    """Rows of unit scale, so that differences are well above rounding."""
    with torch.no_grad():
        for table in (model.user_embedding, model.item_embedding):
            table.copy_(torch.randn(table.shape, generator=generator(7)))
    return model


def dense_layers(users: Tensor, items: Tensor, rating: Tensor, num_layers: int) -> list[Tensor]:
    """Layers 0..L by dense float64 matrices."""
    n = len(users)
    adjacency = torch.zeros(n + len(items), n + len(items), dtype=torch.float64)
    adjacency[:n, n:] = rating
    adjacency[n:, :n] = rating.T
    scale = adjacency.sum(1).clamp_min(1e-300).rsqrt()
    scale[adjacency.sum(1) == 0] = 0
    layers = [torch.cat([users, items]).double()]
    for _ in range(num_layers):
        layers.append(scale[:, None] * (adjacency @ (scale[:, None] * layers[-1])))
    return layers


def rating_of(history: History, span: str) -> Tensor:
    pairs = history.observed(span)
    matrix = torch.zeros(pairs.num_rows, pairs.num_columns, dtype=torch.float64)
    matrix[pairs.rows, pairs.columns] = 1
    return matrix


def test_golden_embeddings_loss_and_gradients(golden):
    case = golden("lightgcn")
    rating = case["in_R"]
    history = History((block(0, tuple(rating.shape), (0, 0), rating.nonzero().tolist()),))
    model = LightGCN(case["in_user_emb"].shape[1], int(case["in_num_layer"]))
    model.meet(history, "neighbours", 3, generator())
    with torch.no_grad():
        model.user_embedding.copy_(case["in_user_emb"])
        model.item_embedding.copy_(case["in_item_emb"])
    close = {"rtol": 1e-5, "atol": 2e-6}
    for found, side in zip(model.embeddings(), ("user", "item"), strict=True):
        torch.testing.assert_close(found, case[f"out_{side}_emb"], **close)
    for index, layer in enumerate(model.layers()):
        for found, side in zip(layer, ("user", "item"), strict=True):
            torch.testing.assert_close(found, case[f"out_layers_{side}"][index], **close)
    users, positives, negatives = (case[f"in_batch_{name}"] for name in ("user", "pos", "neg"))
    torch.testing.assert_close(model.pair_scores(users, positives), case["out_pos_score"].squeeze(1), **close)
    loss = model.loss(RankingBatch(users, positives, negatives[:, None], users.numel()))
    torch.testing.assert_close(loss, case["out_loss"], **close)
    loss.backward()
    for side in ("user", "item"):
        found = getattr(model, f"{side}_embedding").grad
        torch.testing.assert_close(found, case[f"out_grad_{side}_emb"], **close)


@pytest.mark.parametrize("graph", ["block", "cumulative"])
@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_scores_equal_the_dense_formula_on_each_block(graph, num_layers):
    history = random_history(SIZES)
    model = LightGCN(5, num_layers, graph)
    for last in range(3):
        model.meet(until(history, last), "neighbours", 3, generator(last))
        with_large_rows(model)
        rating = rating_of(until(history, last), "block" if graph == "block" else "cumulative")
        layers = dense_layers(model.user_embedding.detach(), model.item_embedding.detach(), rating, num_layers)
        final = torch.stack(layers).mean(0)
        expected = final[: SIZES[last][0]] @ final[SIZES[last][0] :].T
        found = model.scores(torch.arange(SIZES[last][0])).double()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("decay", [1.0, 0.5, 1e-9])
def test_edges_of_earlier_blocks_weigh_less_by_their_age(decay):
    history = random_history(SIZES)
    model = LightGCN(5, 2, "cumulative", edge_decay=decay)
    for last in range(3):
        past = until(history, last)
        model.meet(past, "neighbours", 3, generator(last))
        with_large_rows(model)
        rating = torch.zeros(SIZES[last], dtype=torch.float64)
        for earlier in past.blocks:
            # Blocks come in order, so an edge that comes up again has the weight of its last time.
            rating[earlier.train.users, earlier.train.items] = decay ** (last - earlier.index)
        layers = dense_layers(model.user_embedding.detach(), model.item_embedding.detach(), rating, 2)
        found = torch.cat(model.embeddings()).double()
        torch.testing.assert_close(found, torch.stack(layers).mean(0), rtol=1e-4, atol=1e-5)


def test_decay_nearly_zero_is_the_block_graph_for_those_who_occur_in_it():
    first = block(0, (6, 5), (0, 0), [(user, (user + step) % 5) for user in range(6) for step in (0, 2)])
    history = History((first, block(1, (6, 5), (6, 5), [(0, 0), (0, 1), (1, 1), (2, 0)])))
    models = [LightGCN(5, 1, "cumulative", edge_decay=1e-12), LightGCN(5, 1, "block")]
    for model in models:
        model.meet(history, "neighbours", 3, generator())
        with_large_rows(model)
    decayed, present = (torch.cat(model.embeddings()) for model in models)
    occurs = torch.tensor([True] * 3 + [False] * 3 + [True] * 2 + [False] * 3)
    torch.testing.assert_close(decayed[occurs], present[occurs], rtol=1e-4, atol=1e-4)
    # The others keep the edges that they had.
    assert (decayed[~occurs] - present[~occurs]).norm(dim=1).min() > 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edge_decay": 0.0}, "`edge_decay` is 0.0, but must be above 0"),
        ({"edge_decay": 1.5}, "`edge_decay` is 1.5, but must be above 0 and at most 1"),
        ({"edge_decay": 0.5, "graph": "block"}, "edges of a `block` graph are all of one age: set `graph: cumulative`"),
        ({"edge_decay": 0.5, "graph": "fold"}, "edges of a `fold` graph are all of one age"),
        ({"deployed_decay": 0.0, "graph": "block"}, "`deployed_decay` is 0.0, but must be above 0"),
        ({"deployed_decay": 1.5, "graph": "block"}, "`deployed_decay` is 1.5, but must be above 0 and at most 1"),
        ({"deployed_decay": 0.5}, "learns over block graphs, and `graph` is `cumulative`: set `graph: block`"),
        ({"deployed_decay": 0.5, "graph": "fold"}, "learns over block graphs, and `graph` is `fold`"),
    ],
)
def test_decays_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        LightGCN(4, **options)


def test_fold_makes_the_old_final_embeddings_the_new_layer_zero():
    history = random_history(SIZES)
    model = LightGCN(5, 2, "fold")
    model.meet(until(history, 0), "neighbours", 3, generator())
    with_large_rows(model)
    for last in (1, 2):
        with torch.no_grad():
            users, items = (table.clone() for table in model.embeddings())
        model.meet(until(history, last), "neighbours", 3, generator(last))
        old_users, old_items = (table.detach() for table in model.embeddings(propagated=False))
        assert torch.equal(old_users[: len(users)], users)
        assert torch.equal(old_items[: len(items)], items)
        torch.testing.assert_close(old_users[: len(users)] @ old_items[: len(items)].T, users @ items.T)
        present = dense_layers(old_users, old_items, rating_of(until(history, last), "block"), 2)
        torch.testing.assert_close(
            torch.cat(model.embeddings()).double(), torch.stack(present).mean(0), rtol=1e-4, atol=1e-5
        )


def test_fold_of_a_state_that_was_scored_in_inference_mode():
    history = random_history(SIZES)
    model = LightGCN(5, 2, "fold")
    model.meet(until(history, 0), "neighbours", 3, generator())
    with torch.inference_mode():
        scores = model.scores(torch.arange(8)).clone()
    model.meet(until(history, 1), "neighbours", 3, generator())
    users, items = model.embeddings(propagated=False)
    torch.testing.assert_close((users[:8] @ items[:9].T).detach(), scores)
    model.scores(torch.arange(12)).sum().backward()
    assert model.user_embedding.grad is not None


class Counting:
    """Counts propagations."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        inner = F.lightgcn_propagation

        def counted(*arguments):
            self.count += 1
            return inner(*arguments)

        monkeypatch.setattr(F, "lightgcn_propagation", counted)


@pytest.fixture
def trained_model() -> LightGCN:
    model = LightGCN(5)
    model.meet(until(random_history(SIZES), 0), "neighbours", 3, generator())
    return with_large_rows(model)


def test_shared_propagates_once_with_the_gradients_of_separate_propagations(trained_model, monkeypatch):
    model = trained_model
    users, items = torch.tensor([0, 3]), torch.tensor([1, 4])

    def value() -> Tensor:
        return model.pair_scores(users, items).sum() + model.scores(users).square().sum() + model.layers()[1][0].sum()

    value().backward()
    expected = model.user_embedding.grad.clone()
    model.zero_grad()
    counting = Counting(monkeypatch)
    with model.shared():
        loss = value()
    loss.backward()
    assert counting.count == 1
    torch.testing.assert_close(model.user_embedding.grad, expected)
    assert value().requires_grad and counting.count == 4


def test_scoring_without_gradients_propagates_once_for_a_state(trained_model, monkeypatch):
    counting = Counting(monkeypatch)
    with torch.no_grad():
        for _ in range(3):
            trained_model.scores(torch.arange(8))
        assert counting.count == 1
        trained_model.user_embedding.mul_(2)
        trained_model.scores(torch.arange(8))
    assert counting.count == 2


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("inside", [True, False])
def test_scores_are_never_outdated_after_an_optimizer_step(trained_model, fused, mode, inside):
    model = trained_model
    history = until(random_history(SIZES), 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=fused)
    batch = RankingBatch(torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([[3], [4]]), 2)
    for _ in range(3):
        with mode():
            model.scores(torch.arange(8))
        with model.shared():
            loss = model.loss(batch)
            if inside:
                with mode():
                    model.scores(torch.arange(8))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        fresh = LightGCN(5)
        fresh.load_state_dict(model.state_dict())
        fresh.observe(history)
        with torch.no_grad():
            torch.testing.assert_close(model.scores(torch.arange(8)), fresh.scores(torch.arange(8)))


def test_scores_follow_a_loaded_state_a_reset_and_a_new_block(trained_model):
    history = random_history(SIZES)
    model, other = trained_model, LightGCN(5)
    other.meet(until(history, 0), "neighbours", 3, generator(9))
    users = torch.arange(8)
    with torch.no_grad():
        model.scores(users)
        model.load_state_dict(other.state_dict())
        torch.testing.assert_close(model.scores(users), other.scores(users))
        model.reset(generator())
        model.grow(8, 9, generator(3))
        expected = (model.user_embedding @ model.item_embedding.T)[users]
        torch.testing.assert_close(model.scores(users), expected)
        model.meet(until(history, 1), "neighbours", 3, generator())
        assert model.scores(users).shape == (8, 13)


def test_copies_share_the_graph_but_not_the_parameters(trained_model):
    with torch.no_grad():
        before = trained_model.scores(torch.arange(8)).clone()
        twin = deepcopy(trained_model)
        assert twin._graph is trained_model._graph
        twin.user_embedding.add_(1.0)
        assert torch.equal(trained_model.scores(torch.arange(8)), before)
        assert not torch.equal(twin.scores(torch.arange(8)), before)


def test_layer_zero_is_at_hand_without_propagation(trained_model, monkeypatch):
    counting = Counting(monkeypatch)
    users, items = trained_model.embeddings(propagated=False)
    assert users is trained_model.user_embedding and items is trained_model.item_embedding
    assert counting.count == 0


def test_lightgcn_refuses_a_negative_number_of_layers():
    with pytest.raises(ValueError, match="`num_layers` is -1, but must be 0 or more"):
        LightGCN(4, -1)
