from __future__ import annotations

import sys
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ccd_lightning.functional import neighbour_distillation, neighbour_loss, places, sampled_neighbour_loss

MODULE = sys.modules[neighbour_loss.__module__]
DOUBLE = {"rtol": 1e-9, "atol": 1e-12}
T = 2.0


class Case:
    """Random rows in float64, with one row that has no neighbour and one that has them all."""

    def __init__(self, rows: int, candidates: int, seed: int = 0, scale: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.target = scale * torch.randn(rows, 3, generator=generator, dtype=torch.float64)
        self.neighbours = scale * torch.randn(candidates, 3, generator=generator, dtype=torch.float64)
        self.neighbours.requires_grad_()
        self.links = torch.rand(rows, candidates, generator=generator) < 0.3
        self.links[0], self.links[-1] = False, True
        self.rows, self.columns = self.links.nonzero(as_tuple=True)
        self.weights = torch.rand(rows, generator=generator, dtype=torch.float64).requires_grad_()

    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, float]:
        return self.target, self.neighbours, self.rows, self.columns, self.weights, T

    def expected(self) -> Tensor:
        return -(self.weights * neighbour_distillation(self.target, self.neighbours, self.links.double(), T)).sum()

    def denominators(self) -> Tensor:
        """The softmaxes' denominators, summed one exponential after the other."""
        return (self.target @ self.neighbours.T / T).exp().sum(1)

    def estimated(self, drawn: Tensor) -> Tensor:
        """Denominators of :func:`sampled_neighbour_loss`, solved for in its value with one row's weight set to 1."""
        found = []
        for row in range(1, len(self.target)):
            weights = torch.zeros_like(self.weights)
            weights[row] = 1.0
            loss = sampled_neighbour_loss(*self.inputs()[:4], weights, T, drawn, len(self.neighbours))
            linked = (self.target[row] @ self.neighbours[self.links[row]].T / T).mean()
            found.append((loss + linked).exp())
        return torch.stack(found)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.integers(1, 12), st.integers(0, 100), st.integers(1, 200))
def test_loss_and_gradients_are_those_of_the_rows_whatever_the_chunk(rows, candidates, seed, chunk):
    case = Case(rows, candidates, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "_CHUNK_SCORES", chunk)
        found = neighbour_loss(*case.inputs())
    expected = case.expected()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    learned = (case.neighbours, case.weights)
    for ours, theirs in zip(torch.autograd.grad(found, learned), torch.autograd.grad(expected, learned), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_gradients_are_the_differences_of_the_values():
    case = Case(4, 6)
    case.target.requires_grad_(False)

    def loss(neighbours: Tensor, weights: Tensor) -> Tensor:
        return 3 * neighbour_loss(case.target, neighbours, case.rows, case.columns, weights, T)

    def sampled(neighbours: Tensor, weights: Tensor) -> Tensor:
        links = (case.rows, case.columns)
        return sampled_neighbour_loss(case.target, neighbours, *links, weights, T, torch.tensor([0, 2, 5]), 6)

    assert torch.autograd.gradcheck(loss, (case.neighbours, case.weights))
    assert torch.autograd.gradcheck(sampled, (case.neighbours, case.weights))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e3])
def test_losses_and_gradients_are_finite_at_any_scale(scale):
    case = Case(5, 8, scale=scale)
    inputs = [
        value.float() if isinstance(value, Tensor) and value.is_floating_point() else value for value in case.inputs()
    ]
    for found in (neighbour_loss(*inputs), sampled_neighbour_loss(*inputs, torch.tensor([1, 4]), 8)):
        grads = torch.autograd.grad(found, (case.neighbours, case.weights), retain_graph=True)
        assert found.isfinite() and all(grad.isfinite().all() for grad in grads)


def test_an_empty_batch_costs_nothing():
    nobody = torch.empty(0, dtype=torch.long)
    table = torch.randn(4, 3, requires_grad=True)
    inputs = (torch.empty(0, 3), table, nobody, nobody, torch.empty(0), T)
    for found in (neighbour_loss(*inputs), sampled_neighbour_loss(*inputs, torch.tensor([0, 2]), 4)):
        found.backward()
        assert found == 0 and not table.grad.any()


def test_half_precision_inputs_are_computed_in_full_precision_under_autocast():
    case = Case(6, 9)
    half = [
        value.bfloat16() if isinstance(value, Tensor) and value.is_floating_point() else value
        for value in case.inputs()
    ]
    full = [value.float() if isinstance(value, Tensor) and value.is_floating_point() else value for value in half]
    drawn = (torch.tensor([1, 2, 7]), 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(neighbour_loss(*half), neighbour_loss(*full))
        torch.testing.assert_close(sampled_neighbour_loss(*half, *drawn), sampled_neighbour_loss(*full, *drawn))


@pytest.mark.parametrize("size", [1, 3, 6])
def test_denominators_estimated_from_all_possible_draws_have_the_exact_ones_as_their_mean(size):
    case = Case(4, 7)
    draws = [torch.tensor(drawn) for drawn in combinations(range(7), size)]
    mean = torch.stack([case.estimated(drawn) for drawn in draws]).mean(0)
    torch.testing.assert_close(mean, case.denominators()[1:], **DOUBLE)


def test_a_draw_of_all_candidates_is_exact():
    case = Case(5, 8)
    found = sampled_neighbour_loss(*case.inputs(), torch.arange(8), 8)
    torch.testing.assert_close(found, case.expected(), rtol=1e-6, atol=1e-7)


def test_the_sampled_loss_comes_nearer_to_the_exact_one_as_the_draw_grows():
    case = Case(20, 400)
    exact, generator = float(case.expected()), torch.Generator().manual_seed(1)

    def error(size: int) -> float:
        draws = [torch.randperm(400, generator=generator)[:size].sort().values for _ in range(30)]
        losses = torch.stack([sampled_neighbour_loss(*case.inputs(), drawn, 400).detach() for drawn in draws])
        return float((losses - exact).square().mean().sqrt())

    errors = [error(size) for size in (4, 40, 360)]
    assert errors[0] > 2 * errors[1] and errors[1] > 2 * errors[2]


@given(st.sets(st.integers(0, 20)), st.lists(st.integers(0, 25), max_size=10))
def test_places_are_those_of_a_list(members, ids):
    ascending = sorted(members)
    slots, inside = places(torch.tensor(ascending, dtype=torch.long), torch.tensor(ids, dtype=torch.long))
    assert inside.tolist() == [one in members for one in ids]
    assert slots[inside].tolist() == [ascending.index(one) for one in ids if one in members]
