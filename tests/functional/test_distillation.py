from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ccd_lightning.functional import (
    masked_logsumexp,
    relaxed_ranking_loss,
    relaxed_ranking_loss_from_rest,
    sampled_logsumexp,
)

NONE = torch.empty(0, dtype=torch.long)


def ranking_loss_by_definition(interesting: np.ndarray, uninteresting: np.ndarray, cap: float) -> float:
    loss = 0.0
    for liked, others in zip(np.minimum(interesting, cap), np.minimum(uninteresting, cap), strict=True):
        for place in range(len(liked)):
            loss += np.log(np.exp(liked[place:]).sum() + np.exp(others).sum()) - liked[place]
    return loss


def excluded_pairs(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return mask.nonzero(as_tuple=True)


@pytest.mark.parametrize("sub_case", ["a", "b"])
def test_golden_relaxed_ranking_loss(golden, close, sub_case):
    case = golden("relaxed_ranking_loss")
    interesting = case[f"in_{sub_case}_S1"].requires_grad_()
    uninteresting = case[f"in_{sub_case}_S2"].requires_grad_()
    loss = relaxed_ranking_loss(interesting, uninteresting)
    loss.backward()
    close(f"ranking loss {sub_case}", loss, case[f"out_{sub_case}_loss"])
    close(f"ranking loss {sub_case} grad S1", interesting.grad, case[f"out_{sub_case}_grad_S1"])
    close(f"ranking loss {sub_case} grad S2", uninteresting.grad, case[f"out_{sub_case}_grad_S2"])


@pytest.mark.parametrize("users", [1, 5])
def test_relaxed_ranking_loss_matches_its_definition(users):
    rng = np.random.default_rng(users)
    interesting, uninteresting = 6 * rng.normal(size=(users, 4)), 6 * rng.normal(size=(users, 9))
    loss = relaxed_ranking_loss(torch.tensor(interesting), torch.tensor(uninteresting), cap=4.0)
    assert loss.item() == pytest.approx(ranking_loss_by_definition(interesting, uninteresting, 4.0), rel=1e-12)


def test_relaxed_ranking_loss_has_exact_gradients():
    torch.manual_seed(0)
    scores = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True), torch.randn(3, 5, dtype=torch.float64))
    assert torch.autograd.gradcheck(relaxed_ranking_loss, (scores[0], scores[1].requires_grad_()))


@settings(max_examples=25, deadline=None)
@given(st.floats(-3e4, 3e4, width=32), st.floats(0.01, 1e4), st.integers(0, 5))
def test_relaxed_ranking_loss_stays_finite(centre, scale, others):
    torch.manual_seed(0)
    interesting = (centre + scale * torch.randn(1, 3)).requires_grad_()
    uninteresting = (centre + scale * torch.randn(1, others)).requires_grad_()
    loss = relaxed_ranking_loss(interesting, uninteresting)
    loss.backward()
    assert loss.isfinite() and interesting.grad.isfinite().all() and uninteresting.grad.isfinite().all()


def test_relaxed_ranking_loss_gives_nothing_above_the_cap_a_gradient():
    interesting, uninteresting = torch.tensor([[12.0, 3.0]]), torch.tensor([[11.0, 2.0]])
    relaxed_ranking_loss(interesting.requires_grad_(), uninteresting.requires_grad_()).backward()
    assert interesting.grad[0, 0] == 0 and uninteresting.grad[0, 0] == 0
    assert interesting.grad[0, 1] < 0 < uninteresting.grad[0, 1]


def test_relaxed_ranking_loss_leaves_out_entries_of_minus_infinity():
    interesting = torch.tensor([[1.0, 0.0], [2.0, 1.0]], requires_grad=True)
    uninteresting = torch.tensor([[0.5, -torch.inf], [-torch.inf, -torch.inf]], requires_grad=True)
    relaxed_ranking_loss(interesting, uninteresting).backward()
    first = ranking_loss_by_definition(np.array([[1.0, 0.0]]), np.array([[0.5]]), 10.0)
    second = ranking_loss_by_definition(np.array([[2.0, 1.0]]), np.empty((1, 0)), 10.0)
    assert relaxed_ranking_loss(interesting, uninteresting).item() == pytest.approx(first + second, rel=1e-6)
    assert interesting.grad.isfinite().all() and uninteresting.grad.isfinite().all()


@pytest.mark.parametrize(("users", "cap"), [(1, 10.0), (6, 10.0), (6, 0.7), (6, 500.0)])
def test_masked_logsumexp_matches_a_dense_mask(users, cap):
    torch.manual_seed(users)
    query, keys = 2 * torch.randn(users, 3, dtype=torch.float64), torch.randn(11, 3, dtype=torch.float64)
    mask = torch.rand(users, 11) < 0.4
    kept = np.where(mask.numpy(), 0.0, np.exp(np.minimum(query.numpy() @ keys.numpy().T, cap)))
    expected = torch.tensor(np.log(kept.sum(1, keepdims=True)))
    torch.testing.assert_close(masked_logsumexp(query, keys, *excluded_pairs(mask), cap), expected)


@pytest.mark.parametrize("cap", [10.0, 0.7])
def test_masked_logsumexp_has_exact_gradients(cap):
    torch.manual_seed(1)
    query = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    keys = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    scores = query @ keys.T
    assert (scores - cap).abs().min() > 1e-3 and (cap == 10.0 or (scores > cap).any())
    pairs = excluded_pairs(torch.rand(4, 7) < 0.3)
    assert torch.autograd.gradcheck(lambda q, k: masked_logsumexp(q, k, *pairs, cap), (query, keys))


def test_masked_logsumexp_with_everything_excluded_gives_minus_infinity_and_zero_gradients():
    query, keys = torch.randn(2, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    interesting = torch.randn(2, 5, requires_grad=True)
    log_rest = masked_logsumexp(query, keys, torch.zeros(4, dtype=torch.long), torch.arange(4))
    relaxed_ranking_loss_from_rest(interesting, log_rest).backward()
    assert log_rest[0].item() == -torch.inf and log_rest[1].isfinite()
    assert (query.grad[0] == 0).all() and (query.grad[1] != 0).any()
    assert keys.grad.isfinite().all() and interesting.grad.isfinite().all()


@settings(max_examples=25, deadline=None)
@given(st.floats(-1e4, 1e4, width=32), st.integers(1, 3))
def test_masked_logsumexp_stays_finite_at_any_scale(scale, users):
    query, keys = torch.full((users, 1), scale, requires_grad=True), torch.linspace(0.5, 1, 6)[:, None].requires_grad_()
    result = masked_logsumexp(query, keys, NONE, NONE)
    result.sum().backward()
    assert result.isfinite().all() and query.grad.isfinite().all() and keys.grad.isfinite().all()


def test_masked_logsumexp_does_not_depend_on_how_rows_are_chunked(monkeypatch):
    import ccd_lightning.functional.distillation as module

    torch.manual_seed(2)
    query, keys = torch.randn(9, 3), torch.randn(5, 3)
    pairs = excluded_pairs(torch.rand(9, 5) < 0.3)
    whole = masked_logsumexp(query, keys, *pairs)
    monkeypatch.setattr(module, "_CHUNK_SCORES", 10)
    torch.testing.assert_close(masked_logsumexp(query, keys, *pairs), whole)


def test_masked_logsumexp_keeps_full_precision_under_autocast():
    torch.manual_seed(3)
    query, keys = torch.randn(4, 8), torch.randn(6, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = masked_logsumexp(query, keys, NONE, NONE)
    torch.testing.assert_close(mixed, (query @ keys.T).logsumexp(1, keepdim=True))


@pytest.mark.parametrize("rest", [-torch.inf, -40.0, 3.0])
def test_loss_from_plain_exponentials_equals_the_loss_from_logarithms(monkeypatch, rest):
    import ccd_lightning.functional.distillation as module

    torch.manual_seed(7)
    interesting = (8 * torch.randn(5, 6, dtype=torch.float64)).requires_grad_()
    log_rest = torch.full((5, 1), rest, dtype=torch.float64, requires_grad=True)
    valid = torch.arange(6) < torch.tensor([[6], [4], [1], [0], [6]])
    assert (interesting > 10).any()

    def loss_and_gradients():
        loss = relaxed_ranking_loss_from_rest(interesting, log_rest, valid=valid)
        return loss, *torch.autograd.grad(loss, (interesting, log_rest))

    plain = loss_and_gradients()
    monkeypatch.setattr(module, "_TAME", 0.0)
    torch.testing.assert_close(plain, loss_and_gradients())


def test_masked_logsumexp_gives_only_what_is_above_the_cap_no_gradient():
    query = torch.tensor([[1.0], [-200.0]])
    keys = torch.tensor([[12.0], [9.0], [10.5], [-3.0]], requires_grad=True)
    masked_logsumexp(query[:1], keys, NONE, NONE).sum().backward()
    assert (keys.grad.squeeze(1) == 0).tolist() == [True, False, True, False]
    keys.grad = None
    masked_logsumexp(query[1:], keys[:3], NONE, NONE).sum().backward()
    # Far below the cap nothing is capped, the best score neither.
    assert keys.grad[1] == -200


def test_loss_from_the_exact_rest_equals_the_loss_from_gathered_scores(golden, close):
    case = golden("rrd_interesting")
    torch.manual_seed(4)
    allowed = case["out_uninteresting_mask_with_exclude"].bool()
    users, items = torch.randn(allowed.shape[0], 4), torch.randn(allowed.shape[1], 4, requires_grad=True)
    scores = users @ items.T
    interesting = scores.gather(1, case["out_alt_items_neginf"].long())
    log_rest = masked_logsumexp(users, items, *excluded_pairs(~allowed))
    exact = relaxed_ranking_loss_from_rest(interesting, log_rest)
    gathered = relaxed_ranking_loss(interesting, scores.masked_fill(~allowed, -torch.inf))
    gradients = [torch.autograd.grad(loss, items, retain_graph=True)[0] for loss in (exact, gathered)]
    close("ranking loss from exact rest", exact, gathered.detach())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)


def test_sampled_logsumexp_is_exact_when_everything_is_sampled():
    torch.manual_seed(5)
    scores, excluded = torch.randn(3, 8, dtype=torch.float64), torch.rand(3, 8) < 0.5
    expected = np.log(np.where(excluded.numpy(), 0, np.exp(np.minimum(scores.numpy(), 1.0))).sum(1, keepdims=True))
    torch.testing.assert_close(sampled_logsumexp(scores, 8, excluded, cap=1.0), torch.tensor(expected))


def test_sampled_logsumexp_estimates_the_sum_without_bias():
    torch.manual_seed(6)
    population = torch.randn(50, dtype=torch.float64)
    samples = population[torch.randint(0, 50, (20000, 10))]
    estimates = sampled_logsumexp(samples, population=50).exp()
    error = estimates.std() / 20000**0.5
    assert (estimates.mean() - population.exp().sum()).abs() < 4 * error


def test_sampled_logsumexp_with_everything_excluded_has_finite_gradients():
    scores, interesting = torch.randn(2, 3, requires_grad=True), torch.randn(2, 2)
    log_rest = sampled_logsumexp(scores, 9, torch.tensor([[True] * 3, [False] * 3]))
    relaxed_ranking_loss_from_rest(interesting, log_rest).backward()
    assert log_rest[0].item() == -torch.inf
    assert (scores.grad[0] == 0).all() and (scores.grad[1] > 0).all()


def test_sampled_logsumexp_rejects_an_empty_sample():
    with pytest.raises(ValueError, match=r"Found sampled scores of shape \(2, 0\), expected at least one column"):
        sampled_logsumexp(torch.zeros(2, 0), population=5)
