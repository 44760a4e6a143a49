"""Counting models against dense formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ccd_lightning.backbones import Backbone, ItemKNN, Popularity
from ccd_lightning.data.history import History
from ccd_lightning.types import RankingBatch

from ..tiny import random_history

SIZES = [(25, 18), (31, 24)]
HISTORY = random_history(SIZES, share=0.2)
USER = torch.tensor([0])


def met(model: Backbone, last: int = 1) -> Any:
    for index in range(last + 1):
        model.meet(History(HISTORY.blocks[: index + 1]), "neighbours", 5, torch.Generator().manual_seed(0))
    return model


def dense(span: str, last: int = 1) -> np.ndarray:
    """The 0/1 matrix of train interactions."""
    matrix = np.zeros(SIZES[last])
    for block in HISTORY.blocks[last if span == "block" else 0 : last + 1]:
        matrix[block.train.users.numpy(), block.train.items.numpy()] = 1
    return matrix


def cosines(matrix: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(matrix, axis=0)
    found = matrix.T @ matrix / np.maximum(np.outer(norms, norms), 1e-12)
    np.fill_diagonal(found, 0)
    return found


@pytest.mark.parametrize("span", ["block", "cumulative"])
def test_popularity_counts_users_of_an_item(span):
    scores = met(Popularity(span)).scores(torch.tensor([0, 30]))
    assert np.array_equal(scores.numpy(), np.tile(dense(span).sum(0), (2, 1)))


@pytest.mark.parametrize("span", ["block", "cumulative"])
@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_item_knn_with_all_neighbours_sums_all_cosines(span, chunk):
    scores = met(ItemKNN(100, span, chunk)).scores(torch.arange(31))
    matrix = dense(span)
    np.testing.assert_allclose(scores.numpy(), matrix @ cosines(matrix), atol=1e-5)


@pytest.mark.parametrize("neighbours", [1, 3])
def test_item_knn_keeps_the_most_similar_items_alone(neighbours):
    matrix = dense("cumulative")
    kept = cosines(matrix)
    for row in kept:
        order = sorted(range(len(row)), key=lambda item: (-row[item], item))
        row[order[neighbours:]] = 0
    scores = met(ItemKNN(neighbours)).scores(torch.arange(31))
    np.testing.assert_allclose(scores.numpy(), matrix @ kept, atol=1e-5)


@pytest.mark.parametrize("factory", [Popularity, ItemKNN])
def test_counts_come_back_with_the_history(factory):
    model, restored = met(factory()), factory()
    restored.load_state_dict(model.state_dict())
    restored.observe(HISTORY)
    users = torch.tensor([3, 1])
    assert torch.equal(model.scores(users), restored.scores(users))
    pairs = model.pair_scores(users, torch.tensor([2, 2]))
    assert torch.equal(pairs, model.scores(users)[:, 2])


@pytest.mark.parametrize("factory", [Popularity, ItemKNN])
def test_models_without_parameters_have_nothing_to_minimise(factory):
    model = met(factory(), last=0)
    assert not list(model.parameters())
    assert float(model.loss(RankingBatch(USER, USER, USER[:, None], 1))) == 0.0


def test_item_knn_refuses_no_neighbours():
    with pytest.raises(ValueError, match="`neighbours` is 0, but must be at least 1"):
        ItemKNN(neighbours=0)


def test_a_span_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="`history` is 'week', but must be one of block, cumulative"):
        Popularity("week")
