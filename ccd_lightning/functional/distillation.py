"""Relaxed ranking distillation, and logarithms of sums over a catalogue without its score matrix in the graph."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

SCORE_CAP = 10.0
"""Scores above it count as the cap, so that no exponential overflows (paper's release)."""

# Scores treated at a time on a CPU, so that masks and other temporaries stay small beside the one buffer.
_CHUNK_SCORES = 2**19


def relaxed_ranking_loss(interesting: Tensor, uninteresting: Tensor, cap: float = SCORE_CAP) -> Tensor:
    """Relaxed ranking distillation (DE-RRD, Kang et al., CIKM 2020), summed over rows.

    Args:
        interesting: student scores in the teacher's order, best first, float ``(B, K)``.
        uninteresting: student scores of the others, float ``(B, L)``; ``-inf`` leaves an entry out.
        cap: scores above it count as the cap, and get no gradient.

    Returns:
        Scalar sum.

    >>> relaxed_ranking_loss(torch.tensor([[2.0, 1.0]]), torch.zeros(1, 2))
    tensor(1.0453)
    """
    log_rest = _logsumexp(uninteresting.clamp(max=cap))
    return relaxed_ranking_loss_from_rest(interesting, log_rest, cap)


def relaxed_ranking_loss_from_rest(
    interesting: Tensor, log_rest: Tensor, cap: float = SCORE_CAP, valid: Tensor | None = None
) -> Tensor:
    """The same loss where the sum over the uninteresting entities is already known.

    Args:
        interesting: student scores in the teacher's order, best first, float ``(B, K)``.
        log_rest: logarithm of the sum of exp over the uninteresting scores, float ``(B, 1)``; ``-inf`` for none.
        cap: interesting scores above it count as the cap, and get no gradient.
        valid: positions that hold an entity, a prefix of each row, bool ``(B, K)``; all of them by default.

    Returns:
        Scalar sum.

    >>> relaxed_ranking_loss_from_rest(torch.tensor([[2.0, 1.0]]), torch.tensor([[2.0]]).log())
    tensor(1.0453)
    """
    capped = interesting.clamp(max=cap)
    if valid is None:
        return _positions_loss(capped, log_rest).sum()
    # A finite stand-in for -inf keeps the gradients of padded positions at 0 in place of NaN.
    absent = ~valid
    return _positions_loss(capped.masked_fill(absent, -1e9), log_rest).masked_fill(absent, 0.0).sum()


def _positions_loss(capped: Tensor, log_rest: Tensor) -> Tensor:
    tail = capped.flip(-1).logcumsumexp(-1).flip(-1)
    return torch.logaddexp(tail, log_rest) - capped


def masked_logsumexp(query: Tensor, keys: Tensor, rows: Tensor, columns: Tensor, cap: float = SCORE_CAP) -> Tensor:
    """Logarithm of the sum of ``exp(min(<query_b, key_j>, cap))`` over all the keys but the excluded ones.

    One ``(B, I)`` buffer serves the forward and the backward pass, which is two matrix products.

    Args:
        query: float ``(B, D)``.
        keys: float ``(I, D)``.
        rows: row of each excluded pair, int64 ``(P,)``.
        columns: key of each excluded pair, int64 ``(P,)``.
        cap: scores above it count as the cap, and get no gradient.

    Returns:
        Float ``(B, 1)``; ``-inf``, with zero gradients, where every key is excluded.

    Raises:
        ValueError: if the keys are sharded.

    >>> none = torch.empty(0, dtype=torch.long)
    >>> masked_logsumexp(torch.ones(1, 1), torch.tensor([[0.0], [0.0]]), none, none)
    tensor([[0.6931]])
    >>> masked_logsumexp(torch.ones(1, 1), torch.tensor([[0.0], [3.0]]), torch.tensor([0]), torch.tensor([0]))
    tensor([[3.]])
    """
    if isinstance(keys, DTensor):
        raise ValueError(
            "Found keys sharded by rows, but a sum over all of them needs the whole table: draw a sample of them"
            " (`sample` of the stage's settings)."
        )
    with torch.autocast(query.device.type, enabled=False):
        dtype = torch.promote_types(query.dtype, torch.float32)
        found: Tensor = _MaskedLogSumExp.apply(query.to(dtype), keys.to(dtype), rows, columns, cap)  # type: ignore[no-untyped-call]
        return found


def sampled_logsumexp(scores: Tensor, population: int, excluded: Tensor | None = None, cap: float = math.inf) -> Tensor:
    """Logarithm of an unbiased estimate of the sum of exp over a population, from a uniform sample of it.

    Args:
        scores: scores of the sampled members, float ``(B, L)``.
        population: number of members that the sample was drawn from, excluded ones included.
        excluded: sampled members that do not belong to the sum, bool ``(B, L)``.
        cap: scores above it count as the cap, and get no gradient.

    Returns:
        Float ``(B, 1)``; ``-inf`` where every sampled member is excluded.

    Raises:
        ValueError: if nothing was sampled.

    >>> sampled_logsumexp(torch.zeros(1, 4), population=100).exp().round()
    tensor([[100.]])
    >>> sampled_logsumexp(torch.zeros(1, 4), 100, excluded=torch.tensor([[True, False, False, False]])).exp().round()
    tensor([[75.]])
    """
    if scores.shape[-1] == 0:
        raise ValueError(
            f"Found sampled scores of shape {tuple(scores.shape)}, expected at least one column."
            " Draw one member or more, or sum over the whole population with masked_logsumexp."
        )
    scores = scores.clamp(max=cap)
    if excluded is not None:
        scores = scores.masked_fill(excluded, -math.inf)
    return _logsumexp(scores) + math.log(population / scores.shape[-1])


def _logsumexp(scores: Tensor) -> Tensor:
    """Row-wise ``(B, 1)``; unlike torch's, its gradient is 0 and not NaN in a row that is all ``-inf``."""
    is_void = (scores == -math.inf).all(-1, keepdim=True)
    return scores.masked_fill(is_void, 0.0).logsumexp(-1, keepdim=True).masked_fill(is_void, -math.inf)


class _MaskedLogSumExp(torch.autograd.Function):
    """See :func:`masked_logsumexp`."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, rows: Tensor, columns: Tensor, cap: float) -> Tensor:
        scores = query @ keys.T
        scores[rows, columns] = -math.inf
        result, total = scores.new_empty(len(scores), 1), scores.new_empty(len(scores), 1)
        on_cpu = scores.device.type == "cpu"
        chunk = max(1, _CHUNK_SCORES // max(1, len(keys)) if on_cpu else len(scores))
        for start in range(0, len(scores), chunk):
            part = slice(start, start + chunk)
            result[part], total[part] = _exponentiate_(scores[part], cap)
        ctx.save_for_backward(query, keys, scores, total)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        query, keys, exponentials, total = ctx.saved_tensors
        with torch.autocast(query.device.type, enabled=False):
            weight = torch.where(total > 0, grad / total, 0.0)
            return (exponentials @ keys) * weight, exponentials.T @ (query * weight), None, None, None


def _exponentiate_(scores: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """Turn scores into their exponentials up to a factor for each row, 0 where capped, in place.

    Returns:
        The logarithm of each row's sum over all its capped scores, and that sum up to the factor, ``(B, 1)`` both.
    """
    peak = scores.amax(1, keepdim=True).clamp_(max=cap)
    peak.masked_fill_(peak == -math.inf, 0.0)
    is_capped = scores > cap
    total = scores.clamp_(max=cap).sub_(peak).exp_().sum(1, keepdim=True)
    scores.masked_fill_(is_capped, 0.0)
    return total.log() + peak, total
