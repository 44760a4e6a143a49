"""Relaxed ranking distillation, and logarithms of sums over a catalogue without its score matrix in the graph."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

from ccd_lightning.types import chunks

SCORE_CAP = 10.0
"""Scores above it count as the cap, so that no exponential overflows (paper's release)."""

# Scores treated at a time on a CPU: few enough to stay in its last cache from one operation to the next, and so many that
# the operations last long beside what it takes to begin one.
_CHUNK_SCORES = 2**20

# Powers of 2 take a quarter of the time of those of e.
_LOG2_E = math.log2(math.e)

# Where a row's best score is this far (in powers of 2) below the cap or farther, its exponentials are relative to it.
_NEAR_CAP = 70.0

# Floats beyond each row of a score matrix: rows that are a power of 2 apart would compete for the same lines of the cache.
_ROW_GAP = 16

# Logarithms up to this magnitude have exponentials, sums and quotients of them well inside the range of float64.
_TAME = 300.0


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
    if interesting.device.type == "cpu" and _is_tame(interesting, log_rest, cap):
        loss: Tensor = _TameRankingLoss.apply(interesting, log_rest, cap, valid)  # type: ignore[no-untyped-call]
        return loss
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


def _is_tame(interesting: Tensor, log_rest: Tensor, cap: float) -> bool:
    """Whether plain exponentials in double precision neither vanish nor overflow."""
    if not interesting.numel() or cap > _TAME:
        return False
    return bool(interesting.amin() > -_TAME) and bool(log_rest.amax() < _TAME)


class _TameRankingLoss(torch.autograd.Function):
    """See :func:`relaxed_ranking_loss_from_rest`: the loss and its gradients from one pass of exponentials."""

    @staticmethod
    def forward(ctx: Any, interesting: Tensor, log_rest: Tensor, cap: float, valid: Tensor | None) -> Tensor:
        capped = interesting.double().clamp_(max=cap)
        own, rest = (capped * _LOG2_E).exp2_(), log_rest.double().exp()
        if valid is not None:
            own *= valid
        total = own.flip(-1).cumsum(-1).flip(-1) + rest
        loss, share = total.log() - capped, total.reciprocal()
        own_grad = (interesting <= cap).to(own.dtype)
        if valid is not None:
            loss, share, own_grad = (part.masked_fill_(~valid, 0.0) for part in (loss, share, own_grad))
        own_grad *= own.mul_(share.cumsum(-1)).sub_(1.0)
        rest_grad = rest * share.sum(-1, keepdim=True)
        ctx.save_for_backward(own_grad.to(interesting.dtype), rest_grad.to(log_rest.dtype))
        return loss.sum().to(interesting.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        own_grad, rest_grad = ctx.saved_tensors
        return own_grad * grad, rest_grad * grad, None, None


class _MaskedLogSumExp(torch.autograd.Function):
    """See :func:`masked_logsumexp`; each product has the tables as ``(D, ...)``: with few columns on the right it is slow."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, rows: Tensor, columns: Tensor, cap: float) -> Tensor:
        scaled = query * _LOG2_E
        padded = query.new_empty(len(query), len(keys) + _ROW_GAP)
        scores = padded[:, : len(keys)]
        result, total = query.new_empty(len(query), 1), query.new_empty(len(query), 1)
        chunk = max(1, _CHUNK_SCORES // max(1, len(keys))) if query.device.type == "cpu" else max(1, len(query))
        for part in chunks(len(query), chunk):
            torch.mm(scaled[part], keys.T, out=scores[part])
        padded.view(-1).index_fill_(0, rows * padded.shape[1] + columns, -math.inf)
        for part in chunks(len(query), chunk):
            result[part], total[part] = _exponentiate_(scores[part], cap * _LOG2_E)
        result /= _LOG2_E
        ctx.save_for_backward(query, keys, scores, total)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        query, keys, exponentials, total = ctx.saved_tensors
        with torch.autocast(query.device.type, enabled=False):
            weight = torch.where(total > 0, grad / total, 0.0)
            query_grad = (keys.T @ exponentials.T).T * weight
            return query_grad, ((query * weight).T @ exponentials).T, None, None, None


def _exponentiate_(scores: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """Turn scores into their powers of 2 up to a factor for each row, 0 where capped, in place.

    Returns:
        The binary logarithm of each row's sum over all its capped scores, and that sum up to the factor, ``(B, 1)`` both.
    """
    if not scores.shape[1]:
        return scores.new_full((len(scores), 1), -math.inf), scores.new_zeros(len(scores), 1)
    peak = scores.amax(1, keepdim=True)
    # The powers are exactly 1 where capped, and less elsewhere.
    shift = torch.where(peak < cap - _NEAR_CAP, peak + 1, cap).masked_fill_(peak == -math.inf, 0.0)
    total = scores.clamp_(max=cap).sub_(shift).exp2_().sum(1, keepdim=True)
    scores.frac_()
    return total.log2() + shift, total
