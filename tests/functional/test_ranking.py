from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ccd_lightning.functional import (
    count_higher,
    fuse_ranks,
    hit_rate,
    ndcg,
    order_items,
    rank_items,
    ranks_of,
    recall,
)

FLOATS = st.floats(allow_nan=True, allow_infinity=True, width=32) | st.sampled_from([0.0, -0.0, 1.0, -torch.inf])
SCORES = hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=FLOATS)


def order_by_definition(row: np.ndarray) -> list[int]:
    return sorted(range(len(row)), key=lambda item: (np.isnan(row[item]), 0.0 if np.isnan(row[item]) else -row[item]))


def metrics_by_definition(ranked: list[int], truth: list[int], k: int) -> tuple[float, float, float]:
    hits = [float(item in truth) for item in ranked[:k]]
    gain = sum(hit / np.log2(place + 2) for place, hit in enumerate(hits))
    ideal = sum(1 / np.log2(place + 2) for place in range(min(k, len(truth))))
    return sum(hits) / len(truth), gain / ideal, float(any(hits))


def test_golden_ranks_and_fused_scores(golden, close):
    case = golden("rank_ensemble")
    scores = [case[f"in_scores_{model}"] for model in range(3)]
    power = float(case["in_power"])
    for model in range(3):
        close(f"rank {model}", rank_items(scores[model]), case[f"out_rank_{model}"], 0)
        close(f"rank score {model}", fuse_ranks([scores[model]], power), case[f"out_rank_score_{model}"])
        items = torch.arange(scores[model].shape[1]).expand(scores[model].shape)
        close(f"ranks of all items {model}", ranks_of(scores[model], items), case[f"out_rank_{model}"], 0)
    close("fused ranks", fuse_ranks(scores, power), case["out_ensemble"])


@settings(max_examples=100, deadline=None)
@given(SCORES)
def test_order_and_ranks_match_a_stable_sort_with_nan_last(scores):
    order = order_items(torch.from_numpy(scores)).numpy()
    ranks = rank_items(torch.from_numpy(scores)).numpy()
    for row in range(len(scores)):
        assert order[row].tolist() == order_by_definition(scores[row])
        assert ranks[row][order[row]].tolist() == list(range(scores.shape[1]))
        best = scores[row][order[row][0]]
        assert not np.isnan(best) or np.isnan(scores[row]).all()


@settings(max_examples=50, deadline=None)
@given(SCORES)
def test_integer_sort_and_argsort_give_the_same_order(scores):
    scores = torch.from_numpy(scores)
    # Float64 takes the way of other devices.
    assert torch.equal(order_items(scores), order_items(scores.double()))


@settings(max_examples=50, deadline=None)
@given(SCORES)
def test_ranks_of_counts_strictly_higher_scores(scores):
    items = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    comparable = np.where(np.isnan(scores), -np.inf, scores).astype(np.float64)
    higher = (comparable[:, None, :] > comparable[:, :, None]).sum(-1)
    expected = np.where(np.isnan(scores), (~np.isnan(scores)).sum(1, keepdims=True), higher)
    for dtype in (torch.float32, torch.float64):
        actual = ranks_of(torch.from_numpy(scores).to(dtype), torch.tensor(items))
        np.testing.assert_array_equal(actual.numpy(), expected)


def test_ranks_of_puts_padding_behind_all_items():
    assert ranks_of(torch.tensor([[2.0, 1.0]]), torch.tensor([[-1, 1]])).tolist() == [[2, 1]]


def test_count_higher_leaves_its_inputs_alone():
    scores, values = torch.randn(3, 7), torch.randn(3, 2)
    kept = scores.clone()
    expected = (scores[:, None, :] > values[:, :, None]).sum(-1)
    assert torch.equal(count_higher(scores, values), expected) and torch.equal(scores, kept)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_rank_items_takes_any_shape_and_dtype(dtype):
    scores = torch.randn(2, 3, 8).mul(10).to(dtype)
    ranks = rank_items(scores)
    assert ranks.shape == scores.shape and ranks.dtype == torch.int64
    ordered = scores.gather(-1, ranks.argsort(-1))
    assert (ordered[..., :-1] >= ordered[..., 1:]).all()
    assert torch.equal(rank_items(scores.transpose(0, 1)), ranks.transpose(0, 1))


def test_order_items_does_not_depend_on_chunks(monkeypatch):
    import ccd_lightning.functional.ranking as module

    scores = torch.randn(7, 5)
    whole = order_items(scores)
    monkeypatch.setattr(module, "_SORTED_SCORES", 10)
    assert torch.equal(order_items(scores), whole)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.floats(1e-3, 1e3))
def test_fuse_ranks_does_not_depend_on_the_scale_of_the_scores(seed, scale):
    scores = [torch.randn(3, 6, generator=torch.Generator().manual_seed(seed + model)) for model in range(2)]
    torch.testing.assert_close(fuse_ranks([scale * scores[0], scores[1]]), fuse_ranks(scores))


@pytest.mark.parametrize("scores", [[], [torch.zeros(2, 3), torch.zeros(2, 4)]])
def test_fuse_ranks_rejects_models_that_do_not_match(scores):
    with pytest.raises(ValueError, match=r"Found score shapes .* expected one shape"):
        fuse_ranks(scores)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), st.integers(0, 99), st.integers(1, 6))
def test_metrics_match_their_definitions(k, seed, columns):
    rng = np.random.default_rng(seed)
    ranked = np.stack([rng.permutation(9)[:columns] for _ in range(4)])
    truth = [rng.permutation(12)[: rng.integers(1, 10)] for _ in range(4)]
    rows = [metrics_by_definition(ranked[user].tolist(), truth[user].tolist(), k) for user in range(4)]
    as_list = [torch.tensor(items) for items in truth]
    padded = torch.nn.utils.rnn.pad_sequence(as_list, batch_first=True, padding_value=-1)
    for metric, expected in zip((recall, ndcg, hit_rate), zip(*rows, strict=True), strict=True):
        for given_truth in (as_list, padded):
            actual = metric(torch.tensor(ranked), given_truth, k)
            torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", [recall, ndcg, hit_rate])
def test_metrics_take_padding_empty_truth_and_no_users(metric):
    ranked = torch.tensor([[-1, -1, 4], [0, 1, 2]])
    empty = torch.empty(0, dtype=torch.long)
    assert metric(ranked, [torch.tensor([7]), empty], 3).tolist() == [0.0, 0.0]
    assert metric(ranked, torch.empty(2, 0, dtype=torch.long), 3).tolist() == [0.0, 0.0]
    assert metric(ranked, torch.tensor([[-1, -1], [-1, 2]]), 3)[1] > 0
    assert metric(torch.empty(0, 3, dtype=torch.long), [], 3).shape == (0,)
    assert metric(ranked[:, :0], [torch.tensor([7]), empty], 3).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("metric", [recall, ndcg, hit_rate])
def test_metrics_reject_bad_arguments(metric):
    ranked = torch.tensor([[0, 1]])
    with pytest.raises(ValueError, match="Found k=0, expected a positive number of places"):
        metric(ranked, [torch.tensor([0])], 0)
    with pytest.raises(ValueError, match="Found 1 ranked lists and 2 ground truths"):
        metric(ranked, torch.tensor([[0], [1]]), 1)
