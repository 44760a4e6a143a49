from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from ccd_lightning.functional import larger_labels, merge_proxy, rank_items, replay_weights, sample_without_replacement


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_golden_replay_weights(golden, close):
    case = golden("replay_probs")
    model_rank, proxy_rank, top_n = case["in_model_rank"], case["in_proxy_rank"], int(case["in_absolute"])
    weights = replay_weights(model_rank, proxy_rank, float(case["in_eps"]), top_n)
    default = replay_weights(model_rank, proxy_rank, float(case["in_eps_default"]), top_n)
    close("replay weights", weights, case["out_weight"])
    close("replay weights, default eps", default, case["out_weight_default_eps"])
    close("replay probabilities", weights / weights.sum(1, keepdim=True), case["out_prob"])


def test_golden_replay_labels(golden, close):
    case = golden("replay_probs")
    items = case["in_forced_items"]
    users = torch.arange(len(items))[:, None].expand_as(items)
    labels = case["in_proxy_sigmoid"].gather(1, items)
    num_items = case["in_proxy_sigmoid"].shape[1]
    twice = (torch.cat([column.flatten()] * 2) for column in (users, items))
    found = larger_labels(*twice, torch.cat([labels.flatten(), labels.flatten() / 2]), num_items)
    order = (case["out_ds_user"] * num_items + case["out_ds_item"]).argsort()
    for name, actual in zip(("user", "item", "label"), found, strict=True):
        close(f"replay {name}s", actual, case[f"out_ds_{name}"][order])


def test_golden_proxies(golden, close):
    case = golden("proxy_ema")
    before, present = case["in_before_emb"], case["in_present_emb"]
    for row, momentum in enumerate(case["in_before_weight"].tolist()):
        close(f"proxy with momentum {momentum}", merge_proxy(before, present, momentum), case["out_merged"][row])


def test_replay_weights_follow_the_formula_and_vanish_outside_the_top():
    model_rank, proxy_rank = rank_items(torch.randn(4, 12)), rank_items(torch.randn(3, 9))
    proxy_rank[0, 0] = -1
    weights = replay_weights(model_rank, proxy_rank, 0.1, 4).double().numpy()
    for row, column in itertools.product(range(3), range(9)):
        proxy, model = int(proxy_rank[row, column]), int(model_rank[row, column])
        expected = np.exp(0.1 * (model - proxy)) if 0 <= proxy < 4 else 0.0
        assert weights[row, column] == pytest.approx(expected, rel=1e-6)


def test_replay_weights_of_observed_items_are_zero_if_the_proxy_ranks_them_last():
    scores = torch.randn(5, 10)
    observed = torch.rand(5, 10) < 0.3
    proxy_rank = rank_items(scores.masked_fill(observed, -torch.inf))
    weights = replay_weights(rank_items(torch.randn(5, 10)), proxy_rank, 0.01, int((~observed).sum(1).min()))
    assert (weights[observed] == 0).all() and (weights > 0).any()


def test_replay_weights_reject_a_model_smaller_than_the_proxy():
    with pytest.raises(ValueError, match=r"Found model ranks of shape \(2, 3\), expected at least the proxy's 2 x 4"):
        replay_weights(torch.zeros(2, 3).long(), torch.zeros(2, 4).long(), 0.1, 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 8), st.integers(0, 10), st.integers(0, 99))
def test_draws_have_no_repeats_and_never_take_a_zero_weight(rows, columns, n, seed):
    weights = torch.rand(rows, columns, generator=generator(seed))
    weights[weights < 0.4] = 0
    drawn = sample_without_replacement(weights, n, generator(seed))
    assert drawn.shape == (rows, n) and drawn.dtype == torch.int64
    for row in range(rows):
        taken = [column for column in drawn[row].tolist() if column >= 0]
        assert len(set(taken)) == len(taken) == min(n, int((weights[row] > 0).sum()))
        assert (weights[row, taken] > 0).all()
        assert (drawn[row, len(taken) :] == -1).all()


def test_draws_follow_sequential_weighted_sampling():
    weights, draws = np.array([1.0, 2.0, 3.0, 4.0, 0.0]), 20000
    drawn = sample_without_replacement(torch.tensor(weights).expand(draws, 5), 2, generator(7)).numpy()
    pairs = list(itertools.permutations(range(4), 2))
    expected = [weights[i] / 10 * weights[j] / (10 - weights[i]) * draws for i, j in pairs]
    counts = [((drawn[:, 0] == i) & (drawn[:, 1] == j)).sum() for i, j in pairs]
    assert sum(counts) == draws
    statistic = sum((count - mean) ** 2 / mean for count, mean in zip(counts, expected, strict=True))
    assert statistic < chi2.ppf(0.999, len(pairs) - 1)


def test_draws_are_repeated_by_an_equal_generator():
    weights = torch.rand(6, 9)
    first, second = (sample_without_replacement(weights, 4, generator(3)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("weight", [-1.0, torch.inf, torch.nan])
def test_draws_reject_weights_that_are_no_weights(weight):
    with pytest.raises(ValueError, match=f"Found the sampling weight {weight}, expected finite weights"):
        sample_without_replacement(torch.tensor([[1.0, weight]]), 1, generator())


@pytest.mark.parametrize("shape", [(), (3,), (3, 2), (3, 2, 2)])
def test_merge_proxy_takes_any_shape_and_leaves_its_inputs_alone(shape):
    previous = torch.randn(shape, dtype=torch.float64)
    present = torch.randn((shape[0] + 2, *shape[1:]) if shape else (), dtype=torch.float64, requires_grad=True)
    kept = previous.clone(), present.detach().clone()
    merged = merge_proxy(previous, present, 0.3)
    known = merged[: shape[0]] if shape else merged
    past = kept[1][: shape[0]] if shape else kept[1]
    torch.testing.assert_close(known, 0.3 * kept[0] + 0.7 * past)
    if shape:
        assert torch.equal(merged[shape[0] :], kept[1][shape[0] :])
    assert torch.equal(previous, kept[0]) and torch.equal(present, kept[1]) and not merged.requires_grad


@pytest.mark.parametrize("momentum", [-0.1, 1.1])
def test_merge_proxy_rejects_a_momentum_outside_its_range(momentum):
    with pytest.raises(ValueError, match=rf"Found momentum={momentum}, expected a number in \[0, 1\]"):
        merge_proxy(torch.zeros(1), torch.zeros(1), momentum)


@pytest.mark.parametrize(("before", "after"), [((3,), (2,)), ((2, 3), (2, 4)), ((2,), (2, 2)), ((), (1,))])
def test_merge_proxy_rejects_shapes_that_did_not_grow_by_rows(before, after):
    with pytest.raises(ValueError, match=r"Found a proxy of shape .* expected the model's to differ in more rows"):
        merge_proxy(torch.zeros(before), torch.zeros(after), 0.5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 9)), max_size=20))
def test_larger_labels_keep_the_largest_label_of_each_pair(rows):
    expected: dict[tuple[int, int], float] = {}
    for user, item, label in rows:
        expected[user, item] = max(expected.get((user, item), 0.0), label / 10)
    columns = torch.tensor(rows, dtype=torch.int32).reshape(-1, 3)
    users, items, labels = larger_labels(columns[:, 0], columns[:, 1], columns[:, 2].double() / 10, num_items=5)
    pairs = list(zip(users.tolist(), items.tolist(), strict=True))
    assert pairs == sorted(expected)
    assert labels.tolist() == [expected[pair] for pair in pairs]
