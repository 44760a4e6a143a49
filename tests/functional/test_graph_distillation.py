from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ccd_lightning.functional import cluster_affinity, cluster_loss, importance_weights, neighbour_distillation

LEARNED = ("present_user_emb", "present_item_emb", "cluster", "CSTM", "psv_w1", "psv_b1", "psv_w2", "psv_b2")


def positions(ids: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Common ids of a batch, with repetitions, and their places among the sorted old ids."""
    common = batch[torch.isin(batch, ids)]
    return common, torch.searchsorted(ids, common)


class Reference:
    """The terms of the golden case, put together from the functions under test."""

    def __init__(self, case: dict[str, Tensor]) -> None:
        self.case = case
        self.learned = {name: case[f"in_{name}"].clone().requires_grad_() for name in LEARNED}
        self.users, self.user_rows = positions(case["in_before_user_ids"], case["in_batch_user"])
        self.items, self.item_rows = positions(case["in_before_item_ids"], case["in_batch_item"])

    def rows(self, own: str, other: str, adjacency: Tensor) -> Tensor:
        rows = self.user_rows if own == "user" else self.item_rows
        target = self.case[f"in_before_{own}_emb"][rows]
        neighbours = self.learned[f"present_{other}_emb"][self.case[f"in_before_{other}_ids"]]
        return neighbour_distillation(target, neighbours, adjacency[rows], float(self.case["in_temperature"]))

    def affinities(self) -> tuple[Tensor, Tensor]:
        before = self.case["in_before_user_emb"][self.user_rows]
        present = self.learned["present_user_emb"][self.users]
        clusters, transforms = self.learned["cluster"], self.learned["CSTM"]
        return cluster_affinity(before, clusters, transforms), cluster_affinity(present, clusters, transforms)

    def weights(self) -> Tensor:
        before, present = self.affinities()
        network = [self.learned[f"psv_{name}"] for name in ("w1", "b1", "w2", "b2")]
        return importance_weights((before - present) ** 2, *network)

    def cluster_loss(self) -> Tensor:
        items = self.learned["present_item_emb"][self.case["in_present_item_ids"]]
        return cluster_loss(items, self.learned["cluster"], int(self.case["in_v"]))

    def all_rows(self) -> dict[str, Tensor]:
        rating = self.case["in_before_rating_mat"]
        return {
            "UI": self.rows("user", "item", rating),
            "IU": self.rows("item", "user", rating.T),
            "UU": self.rows("user", "user", self.case["in_UU"]),
            "II": self.rows("item", "item", self.case["in_II"]),
        }


def test_golden_rows_and_losses(golden, close):
    case = golden("lwckd_piw")
    reference = Reference(case)
    for name, rows in reference.all_rows().items():
        close(f"lwckd rows {name}", rows, case[f"out_row_{name}"])
        close(f"lwckd loss {name}", -rows.mean(), case[f"out_{name}_loss"])
    close("cluster loss", reference.cluster_loss(), case["out_cluster_loss"])


def test_golden_affinities_and_weights(golden, close):
    case = golden("lwckd_piw")
    reference = Reference(case)
    before, present = reference.affinities()
    close("affinity before", before, case["out_G_before"])
    close("affinity present", present, case["out_G_present"])
    close("state", (before - present) ** 2, case["out_state_vector"])
    close("imitation weights", reference.weights()[:, None], case["out_piw_scaled"])


def test_golden_element_wise_weighting_and_its_gradients(golden, close):
    case = golden("lwckd_piw")
    reference = Reference(case)
    rows, weights = reference.all_rows(), reference.weights()
    losses = {name: -(weights * rows[name]).mean() if name[0] == "U" else -rows[name].mean() for name in rows}
    close("weighted loss UI", losses["UI"], case["out_alt_UI_loss"])
    close("weighted loss UU", losses["UU"], case["out_alt_UU_loss"])
    (sum(losses.values()) + reference.cluster_loss()).backward()
    for key, expected in case.items():
        if key.startswith("out_alt_grad_"):
            name = key.removeprefix("out_alt_grad_")
            parameter = reference.learned.get(name, reference.learned.get(f"present_{name}"))
            close(f"weighted grad {name}", parameter.grad, expected)


def test_golden_unweighted_gradients(golden, close):
    case = golden("lwckd_piw")
    reference = Reference(case)
    (-sum(rows.mean() for rows in reference.all_rows().values()) + reference.cluster_loss()).backward()
    for name in ("user_emb", "item_emb"):
        close(f"unweighted grad {name}", reference.learned[f"present_{name}"].grad, case[f"out_grad_{name}"])
    close("unweighted grad cluster", reference.learned["cluster"].grad, case["out_grad_cluster"])


@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_coo, torch.sparse_csr])
def test_neighbour_distillation_matches_its_definition_in_every_layout(layout):
    rng = np.random.default_rng(0)
    target, neighbours = rng.normal(size=(5, 3)), rng.normal(size=(8, 3))
    adjacency = (rng.uniform(size=(5, 8)) < 0.4).astype(float)
    adjacency[1] = 0
    scores = target @ neighbours.T / 2.0
    log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    expected = (adjacency * log_p).sum(1) / np.maximum(adjacency.sum(1), 1)
    links = torch.tensor(adjacency) if layout == torch.strided else torch.tensor(adjacency).to_sparse(layout=layout)
    actual = neighbour_distillation(torch.tensor(target), torch.tensor(neighbours), links, 2.0)
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_coo, torch.sparse_csr])
def test_neighbour_distillation_has_exact_gradients(layout):
    torch.manual_seed(1)
    target = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    neighbours = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    links = (torch.rand(3, 4) < 0.5).double()
    links = links if layout == torch.strided else links.to_sparse(layout=layout)
    assert torch.autograd.gradcheck(lambda t, n: neighbour_distillation(t, n, links, 5.0), (target, neighbours))


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 1e4), st.integers(1, 3))
def test_neighbour_distillation_stays_finite_at_any_scale(scale, users):
    torch.manual_seed(0)
    target, neighbours = scale * torch.randn(users, 3), torch.randn(6, 3, requires_grad=True)
    rows = neighbour_distillation(target, neighbours, torch.ones(users, 6), 5.0)
    rows.sum().backward()
    assert rows.isfinite().all() and neighbours.grad.isfinite().all() and (rows <= 0).all()


def test_neighbour_distillation_keeps_full_precision_under_autocast():
    torch.manual_seed(2)
    target, neighbours, links = torch.randn(3, 4), torch.randn(5, 4), torch.ones(3, 5).to_sparse()
    expected = neighbour_distillation(target, neighbours, links, 5.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(neighbour_distillation(target, neighbours, links, 5.0), expected)


def test_cluster_loss_moves_clusters_only():
    items, clusters = torch.randn(6, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    cluster_loss(items, clusters, 5).backward()
    assert items.grad is None and clusters.grad.isfinite().all() and (clusters.grad != 0).any()


@pytest.mark.parametrize("distance", [0.0, 1e3])
def test_cluster_loss_is_finite_for_items_on_top_of_clusters_and_far_away(distance):
    clusters = torch.randn(2, 3, requires_grad=True)
    loss = cluster_loss(clusters.detach() + distance, clusters, 5000)
    loss.backward()
    assert loss.isfinite() and clusters.grad.isfinite().all()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.floats(0, 1))
def test_importance_weights_are_positive_and_have_mean_one(users, scale):
    torch.manual_seed(users)
    network = (scale * torch.randn(5, 4), torch.randn(5), torch.randn(1, 5), torch.randn(1))
    weights = importance_weights(torch.rand(users, 4), *network)
    assert weights.shape == (users,) and (weights >= 0).all()
    assert weights.mean().item() == pytest.approx(1.0, abs=1e-5)
