from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ccd_lightning.functional import (
    annealed_weight,
    bpr_loss,
    gather_rows,
    gaussian_kl,
    listed_products,
    multinomial_loss,
    soft_label_loss,
)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_bpr_loss_matches_the_formula_for_one_and_many_negatives():
    rng = np.random.default_rng(0)
    positive, one, many = rng.normal(size=7), rng.normal(size=7), rng.normal(size=(7, 3))
    expected_one = -np.log(sigmoid(positive - one)).sum()
    expected_many = -sum(np.log(sigmoid(positive[b] - many[b, n])) for b in range(7) for n in range(3))
    torch.testing.assert_close(bpr_loss(torch.tensor(positive), torch.tensor(one)).item(), expected_one)
    torch.testing.assert_close(bpr_loss(torch.tensor(positive), torch.tensor(many)).item(), expected_many)


@settings(max_examples=25, deadline=None)
@given(st.floats(-1e4, 1e4, width=32), st.floats(-1e4, 1e4, width=32))
def test_bpr_loss_stays_finite_with_finite_gradients_at_any_margin(positive, negative):
    scores = torch.tensor([positive, negative], dtype=torch.float32, requires_grad=True)
    loss = bpr_loss(scores[:1], scores[1:])
    loss.backward()
    assert loss.isfinite() and scores.grad.isfinite().all()
    assert loss >= max(0.0, negative - positive) - 1e-3


def test_bpr_loss_rejects_scores_that_do_not_pair_up():
    with pytest.raises(ValueError, match=r"Found positive scores of shape \(3, 1\).*expected \(B,\)"):
        bpr_loss(torch.zeros(3, 1), torch.zeros(3))


def test_soft_label_loss_matches_the_cross_entropy_and_survives_large_scores():
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(size=9), rng.uniform(size=9)
    p = sigmoid(scores)
    expected = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).sum()
    torch.testing.assert_close(soft_label_loss(torch.tensor(scores), torch.tensor(labels)).item(), expected)
    assert soft_label_loss(torch.tensor([1e4, -1e4]), torch.tensor([0.0, 1.0])).item() == pytest.approx(2e4)


def test_soft_label_loss_is_least_where_the_score_is_the_logit_of_the_label():
    label = torch.tensor([0.3], dtype=torch.float64)
    scores = torch.linspace(-3, 3, 601, dtype=torch.float64)
    losses = torch.stack([soft_label_loss(score[None], label) for score in scores])
    assert scores[losses.argmin()].item() == pytest.approx(np.log(0.3 / 0.7), abs=0.01)


def test_multinomial_loss_matches_the_formula_and_survives_large_logits():
    rng = np.random.default_rng(2)
    logits, target = rng.normal(size=(3, 5)), rng.uniform(size=(3, 5))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = torch.tensor(-(target * np.log(p)).sum(1))
    torch.testing.assert_close(multinomial_loss(torch.tensor(logits), torch.tensor(target)), expected)
    assert multinomial_loss(torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0]])).item() == pytest.approx(2e4)


def test_gaussian_kl_matches_torch_distributions():
    torch.manual_seed(3)
    mean, log_std = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    normal = torch.distributions.Normal(mean, log_std.exp())
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(normal, standard).sum(-1)
    torch.testing.assert_close(gaussian_kl(mean, log_std), expected)
    assert gaussian_kl(torch.zeros(1, 6), torch.zeros(1, 6)).item() == 0.0


def test_annealed_weight_rejects_a_total_that_is_not_positive():
    with pytest.raises(ValueError, match="Found total=0, expected a positive number"):
        annealed_weight(1, total=0, maximum=0.2)


def test_golden_vae_forward_and_gradients(golden, close):
    case = golden("vae")
    names = ("enc_w", "enc_b", "dec_w", "dec_b", "mean_w", "mean_b", "logstd_w", "logstd_b")
    weight = {name: case[f"in_{name}"].clone().requires_grad_() for name in names}
    linear, step = torch.nn.functional.linear, int(case["in_step"])
    target = torch.nn.functional.normalize(case["in_x"], dim=-1)
    hidden = linear(target, weight["enc_w"], weight["enc_b"]).tanh()
    mean = linear(hidden, weight["mean_w"], weight["mean_b"])
    log_std = linear(hidden, weight["logstd_w"], weight["logstd_b"])
    logits = linear(mean, weight["dec_w"], weight["dec_b"])
    beta = annealed_weight(step, int(case["in_total_anneal_steps"]), float(case["in_max_anneal"]))
    recon, kl = multinomial_loss(logits, target), gaussian_kl(mean, log_std)
    # The reference leaves out the constant -1/2 of each latent dimension.
    kl_without_constant = kl + 0.5 * mean.shape[1]
    loss = (recon + beta * kl_without_constant).mean()
    loss.backward()
    close("vae target", target, case["out_target"])
    close("vae recon rows", recon, case["out_recon_rows"])
    close("vae kl rows", kl_without_constant, case["out_kl_rows"])
    close("vae total rows", recon + beta * kl_without_constant, case["out_total_rows"])
    close("vae total loss", loss, case["out_total_loss"])
    for name, parameter in weight.items():
        if f"out_grad_{name}" in case:
            close(f"vae grad {name}", parameter.grad, case[f"out_grad_{name}"])


def test_golden_vae_annealing(golden, close):
    case = golden("vae")
    total, maximum = int(case["in_total_anneal_steps"]), float(case["in_max_anneal"])
    weights = [annealed_weight(step, total, maximum) for step in case["in_klw_steps"].tolist()]
    close("vae annealed weights", torch.tensor(weights, dtype=torch.float64), case["out_klw"], 1e-12)


def test_golden_lightgcn_loss(golden, close):
    case = golden("lightgcn")
    close("lightgcn bpr loss", bpr_loss(case["out_pos_score"], case["out_neg_score"]), case["out_loss"])


@pytest.mark.parametrize("width", [(), (3,)])
def test_gathered_rows_and_their_gradient_are_products_with_ones(width):
    torch.manual_seed(0)
    table = torch.randn(5, *width, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(5, (4, 2))
    weight = torch.randn(4, 2, *width, dtype=torch.float64)
    chosen = torch.nn.functional.one_hot(ids, 5).double()
    expected = (chosen @ table.reshape(5, -1)).reshape(weight.shape)
    found = gather_rows(table, ids)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((weight * one).sum(), table)[0] for one in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_gradients_of_gathered_rows_add_up_in_one_order_on_several_threads(two_threads):
    torch.manual_seed(0)
    table, ids, weight = torch.randn(50, 64, requires_grad=True), torch.randint(50, (4000,)), torch.randn(4000, 64)
    first, *others = (torch.autograd.grad((weight * gather_rows(table, ids)).sum(), table)[0] for _ in range(20))
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize(("rows", "places"), [(3, 4), (0, 4), (3, 0)])
def test_listed_products_and_their_gradients_equal_those_of_the_whole_score_matrix(rows, places):
    torch.manual_seed(0)
    query = torch.randn(rows, 2, dtype=torch.float64, requires_grad=True)
    table = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    ids, weight = torch.randint(5, (rows, places)), torch.randn(rows, places, dtype=torch.float64)
    found, expected = listed_products(query, table, ids), (query @ table.T).gather(1, ids)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((weight * one).sum(), (query, table)) for one in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_listed_products_keep_full_precision_under_autocast():
    torch.manual_seed(1)
    query, table, ids = torch.randn(4, 8), torch.randn(6, 8), torch.randint(6, (4, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = listed_products(query, table, ids)
    torch.testing.assert_close(mixed, (query @ table.T).gather(1, ids))
