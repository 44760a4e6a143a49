"""The contrastive loss over graph neighbours for whole batches, without a (batch, catalogue) object in the graph."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ccd_lightning.functional.distillation import masked_logsumexp
from ccd_lightning.functional.losses import gather_rows

# Scores held at a time. On a CPU they stay in its cache between the two products and the exponential.
_CHUNK_SCORES = 2**20
_CHUNK_SCORES_ELSEWHERE = 2**26


def neighbour_loss(
    target: Tensor, neighbours: Tensor, rows: Tensor, columns: Tensor, weights: Tensor, temperature: float
) -> Tensor:
    """``-(weights * l).sum()`` with the ``l`` of :func:`neighbour_distillation` (LWC-KD, CIKM 2021).

    The gradient is made together with the value, a few rows at a time: two matrix products, and no more memory than
    one chunk of scores, whatever the batch.

    Args:
        target: embeddings before the update, float ``(B, D)``; constants, they get no gradient.
        neighbours: present embeddings of all the candidates, float ``(N, D)``.
        rows: row of each (target, neighbour) link, int64 ``(P,)``, ascending.
        columns: candidate of each link, int64 ``(P,)``.
        weights: weight of each row, float ``(B,)``.
        temperature: T, positive.

    Returns:
        Scalar; rows without links add nothing.

    >>> links = torch.tensor([0, 0]), torch.tensor([0, 3])
    >>> neighbour_loss(torch.ones(1, 1), torch.zeros(4, 1), *links, torch.tensor([2.0]), temperature=5.0)
    tensor(2.7726)
    """
    dtype = torch.promote_types(torch.promote_types(target.dtype, neighbours.dtype), torch.float32)
    target, neighbours, weights = target.detach().to(dtype), neighbours.to(dtype), weights.to(dtype)
    with torch.autocast(target.device.type, enabled=False):
        found: Tensor = _NeighbourLoss.apply(target / temperature, neighbours, rows, columns, weights)  # type: ignore[no-untyped-call]
        return found


def sampled_neighbour_loss(
    target: Tensor,
    neighbours: Tensor,
    rows: Tensor,
    columns: Tensor,
    weights: Tensor,
    temperature: float,
    drawn: Tensor,
    population: int,
) -> Tensor:
    """:func:`neighbour_loss` with each softmax's denominator estimated from ``m`` drawn candidates.

    Of the ``population`` candidates, a row b sums its own neighbours ``N_b`` exactly and estimates the others:
    ``Z_b = sum_{j in N_b} exp s_bj + population / m * sum_{j drawn, not in N_b} exp s_bj``. Each candidate is drawn with
    probability ``m / population``, so the estimate of ``Z_b`` has no bias (Horvitz and Thompson, JASA 1952); that of
    ``log Z_b`` is too small by a part that falls as ``1 / m``.

    Args:
        target: embeddings before the update, float ``(B, D)``; constants, they get no gradient.
        neighbours: present embeddings, float ``(N, D)``.
        rows: row of each (target, neighbour) link, int64 ``(P,)``, ascending.
        columns: neighbour of each link, a row of ``neighbours``, int64 ``(P,)``.
        weights: weight of each row, float ``(B,)``.
        temperature: T, positive.
        drawn: candidates drawn uniformly without replacement, rows of ``neighbours``, int64 ``(m,)``, ascending.
        population: candidates that they were drawn from, at least ``m``.

    Returns:
        Scalar; rows without links add nothing.

    >>> links = torch.tensor([0, 0]), torch.tensor([0, 3])
    >>> table, drawn = torch.zeros(4, 1), torch.tensor([1, 2])
    >>> sampled_neighbour_loss(torch.ones(1, 1), table, *links, torch.tensor([2.0]), 5.0, drawn, population=4)
    tensor(3.5835)
    """
    dtype = torch.promote_types(torch.promote_types(target.dtype, neighbours.dtype), torch.float32)
    target, neighbours, weights = target.detach().to(dtype) / temperature, neighbours.to(dtype), weights.to(dtype)
    slots, inside = places(drawn, columns)
    others = masked_logsumexp(target, gather_rows(neighbours, drawn), rows[inside], slots[inside], math.inf)
    log_others = others.squeeze(-1) + math.log(population / drawn.numel())
    scores = (gather_rows(target, rows) * gather_rows(neighbours, columns)).sum(-1)
    degree = torch.bincount(rows, minlength=len(target)).to(dtype)
    with torch.no_grad():
        peak = log_others.scatter_reduce(0, rows, scores, "amax")
        peak.masked_fill_(peak == -math.inf, 0.0)
    total = (log_others - peak).exp().index_add(0, rows, (scores - peak[rows]).exp())
    linked = torch.zeros_like(peak).index_add(0, rows, scores)
    values = linked / degree.clamp_min(1.0) - (total.clamp_min(torch.finfo(dtype).tiny).log() + peak)
    return -(weights * values.masked_fill(degree == 0, 0.0)).sum()


def places(ascending: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Where ids stand in a list of ascending ones.

    Args:
        ascending: int64 ``(N,)``, without repeats.
        ids: int64 ``(P,)``.

    Returns:
        places, int64 ``(P,)``, of no meaning for those that are not in the list; which are in it, bool ``(P,)``.

    >>> places(torch.tensor([2, 5]), torch.tensor([5, 3, 2]))
    (tensor([1, 1, 0]), tensor([ True, False,  True]))
    """
    if not ascending.numel():
        return torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    slots = torch.searchsorted(ascending, ids).clamp_max(ascending.numel() - 1)
    return slots, ascending[slots] == ids


class _NeighbourLoss(torch.autograd.Function):
    """See :func:`neighbour_loss`; the target is already divided by the temperature."""

    @staticmethod
    def forward(ctx: Any, target: Tensor, neighbours: Tensor, rows: Tensor, columns: Tensor, weights: Tensor) -> Tensor:
        counts = torch.bincount(rows, minlength=len(target))
        degree = counts.clamp_min(1).to(target.dtype)
        values = torch.zeros_like(weights)
        grad = torch.zeros_like(neighbours) if ctx.needs_input_grad[1] else None
        on_cpu = target.device.type == "cpu"
        chunk = max(1, (_CHUNK_SCORES if on_cpu else _CHUNK_SCORES_ELSEWHERE) // max(1, len(neighbours)))
        edges = [*range(0, len(target), chunk), len(target)]
        firsts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])[edges].tolist()
        for (start, stop), (first, last) in zip(pairwise(edges), pairwise(firsts), strict=True):
            part, links = slice(start, stop), (rows[first:last] - start, columns[first:last])
            values[part] = _add_rows(grad, target[part], neighbours, links, degree[part], weights[part])
        values.masked_fill_(counts == 0, 0.0)
        ctx.save_for_backward(values, grad)
        return -(weights * values).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, None, None, Tensor]:
        values, of_neighbours = ctx.saved_tensors
        return None, None if of_neighbours is None else of_neighbours * grad, None, None, -values * grad


def _add_rows(
    grad: Tensor | None,
    target: Tensor,
    neighbours: Tensor,
    links: tuple[Tensor, Tensor],
    degree: Tensor,
    weights: Tensor,
) -> Tensor:
    """Mean log-probability of each row's neighbours, ``(B,)``; adds their part to the candidates' gradient in place."""
    scores = target @ neighbours.T
    linked = torch.zeros_like(degree).index_add_(0, links[0], scores[links])
    peak = scores.amax(1, keepdim=True)
    total = scores.sub_(peak).exp_().sum(1)
    if grad is not None:
        # The derivative by a score is weight * (softmax - link / degree): 0 in a row without links.
        is_linked = torch.zeros_like(degree).index_fill_(0, links[0], 1.0)
        scores[links] -= (total / degree)[links[0]]
        grad.addmm_(scores.T, target * (weights * is_linked / total).unsqueeze(1))
    return linked / degree - total.log() - peak.squeeze(1)
