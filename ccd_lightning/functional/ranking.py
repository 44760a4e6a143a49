"""Orders, ranks, rank fusion, and ranking metrics for each user."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

# Scores sorted at a time on the CPU; their packed form, 8 bytes each, should stay in the cache.
_SORTED_SCORES = 2**19


def order_items(scores: Tensor) -> Tensor:
    """Item ids of each row, best first; ties go to the lower id, ``-inf`` comes after finite scores and NaN last.

    Args:
        scores: ``(..., I)``.

    Returns:
        Int64 ``(..., I)``.

    >>> order_items(torch.tensor([float("nan"), 1.0, 3.0, 1.0]))
    tensor([2, 1, 3, 0])
    """
    if scores.device.type == "cpu" and scores.dtype in (torch.float32, torch.float16, torch.bfloat16):
        flat = scores.detach().float().reshape(-1, scores.shape[-1]).numpy()
        return torch.from_numpy(_order_rows(flat)).reshape(scores.shape)
    # Ascending order of the negated scores, since a descending sort would put NaN first.
    return (-scores).argsort(dim=-1, stable=True)


def rank_items(scores: Tensor) -> Tensor:
    """Rank of each item in its row, 0 = best; ties, ``-inf`` and NaN as in :func:`order_items`.

    Args:
        scores: ``(..., I)``.

    Returns:
        Int64 ``(..., I)``, a permutation of 0, ..., I-1 in each row.

    >>> rank_items(torch.tensor([0.1, 0.9, 0.5]))
    tensor([2, 0, 1])
    """
    order = order_items(scores)
    ranks = torch.arange(scores.shape[-1], device=scores.device).expand(scores.shape)
    return torch.empty_like(order).scatter_(-1, order, ranks)


def ranks_of(scores: Tensor, candidates: Tensor) -> Tensor:
    """Ranks of some items only: how many items of the row score strictly higher. Tied items share the best rank.

    Args:
        scores: ``(B, I)``.
        candidates: item ids, int64 ``(B, N)``; -1 is padding.

    Returns:
        Int64 ``(B, N)``; NaN scores rank behind all others, padding has rank I.

    >>> ranks_of(torch.tensor([[0.1, 0.9, 0.5]]), torch.tensor([[2, 0, -1]]))
    tensor([[1, 2, 3]])
    """
    ranks = count_higher(scores, scores.gather(-1, candidates.clamp(min=0)))
    return ranks.masked_fill(candidates < 0, scores.shape[-1])


def count_higher(scores: Tensor, values: Tensor) -> Tensor:
    """Number of scores of a row that are strictly higher than a value, NaN being lower than any number.

    One sort of each row serves all its values.

    Args:
        scores: ``(B, I)``.
        values: ``(B, N)``, of the same dtype.

    Returns:
        Int64 ``(B, N)``.

    >>> count_higher(torch.tensor([[0.1, 0.9, 0.5]]), torch.tensor([[0.5, 0.0]]))
    tensor([[1, 3]])
    """
    # A search among NaNs goes astray; as numbers below -inf they cannot be told from -inf, and need not be.
    negated = (-scores.detach()).nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    if negated.device.type == "cpu" and negated.dtype in (torch.float32, torch.float64):
        negated = negated.contiguous()
        negated.numpy().sort(axis=-1)
    else:
        negated = negated.sort(dim=-1).values
    counts = torch.searchsorted(negated, -values.detach().contiguous())
    if values.isnan().any():
        numbers = (~scores.isnan()).sum(-1, keepdim=True)
        counts = torch.where(values.isnan(), numbers, counts)
    return counts


def fuse_ranks(list_of_scores: Sequence[Tensor], power: float = 0.05) -> Tensor:
    """Fused scores of several models, the mean of ``(rank + 1)^-power``, free of the models' score scales.

    The teacher system of "Continual Collaborative Distillation for Recommender System" (Lee et al., KDD 2024).

    Args:
        list_of_scores: one ``(..., I)`` for each model.
        power: how quickly the importance falls with the rank.

    Returns:
        Float32 ``(..., I)``, in (0, 1].

    Raises:
        ValueError: if there is no model, or the models score different users or items.

    >>> fuse_ranks([torch.tensor([3.0, 1.0]), torch.tensor([500.0, 900.0])], power=1.0)
    tensor([0.7500, 0.7500])
    """
    shapes = {tuple(scores.shape) for scores in list_of_scores}
    if len(shapes) != 1:
        raise ValueError(
            f"Found score shapes {sorted(shapes)}, expected one shape shared by at least one model."
            " Score the same users and items with every model of the system."
        )
    first = list_of_scores[0]
    places = torch.arange(1, first.shape[-1] + 1, dtype=torch.float64, device=first.device)
    importance = places.pow(-power).to(torch.float32)
    # Explicit, since a run in double precision changes the default.
    fused = torch.zeros(first.shape, dtype=torch.float32, device=first.device)
    for scores in list_of_scores:
        # Placed straight along the order: ranks as integers would take twice the memory.
        fused += torch.empty_like(fused).scatter_(-1, order_items(scores), importance.expand(first.shape))
    return fused / len(list_of_scores)


def recall(ranked: Tensor, ground_truth: Sequence[Tensor] | Tensor, k: int) -> Tensor:
    """Share of each user's ground truth among the first k items, ``hits / |g|``.

    Args:
        ranked: item ids, best first and free of masked items, int64 ``(B, C)``; -1 never hits, and C may be below k.
        ground_truth: B int64 tensors, or int64 ``(B, G)`` padded with -1; each item once.
        k: number of places that count.

    Returns:
        Float64 ``(B,)``; 0 for a user without ground truth, whom the caller should leave out of means.

    Raises:
        ValueError: if k is not positive, or if ``ranked`` and ``ground_truth`` differ in users.

    >>> recall(torch.tensor([[3, 1, 2]]), [torch.tensor([1, 5])], k=2)
    tensor([0.5000], dtype=torch.float64)
    """
    hits, sizes = _hits(ranked, ground_truth, k)
    return hits.sum(1) / sizes.clamp(min=1)


def ndcg(ranked: Tensor, ground_truth: Sequence[Tensor] | Tensor, k: int) -> Tensor:
    """Normalised discounted cumulative gain of the first k items (Jarvelin and Kekalainen, TOIS 2002), binary gains.

    The ideal list holds ``min(k, |g|)`` hits.

    Args:
        ranked: item ids, best first and free of masked items, int64 ``(B, C)``; -1 never hits, and C may be below k.
        ground_truth: B int64 tensors, or int64 ``(B, G)`` padded with -1; each item once.
        k: number of places that count.

    Returns:
        Float64 ``(B,)``; 0 for a user without ground truth, whom the caller should leave out of means.

    Raises:
        ValueError: if k is not positive, or if ``ranked`` and ``ground_truth`` differ in users.

    >>> ndcg(torch.tensor([[3, 1, 2]]), [torch.tensor([1])], k=2)
    tensor([0.6309], dtype=torch.float64)
    """
    hits, sizes = _hits(ranked, ground_truth, k)
    discounts = 1 / torch.arange(2, k + 2, dtype=torch.float64, device=ranked.device).log2()
    ideal = discounts.cumsum(0)[sizes.clamp(1, k) - 1]
    return (hits * discounts[: hits.shape[1]]).sum(1) / ideal


def hit_rate(ranked: Tensor, ground_truth: Sequence[Tensor] | Tensor, k: int) -> Tensor:
    """Whether any of each user's ground truth is among the first k items.

    Args:
        ranked: item ids, best first and free of masked items, int64 ``(B, C)``; -1 never hits, and C may be below k.
        ground_truth: B int64 tensors, or int64 ``(B, G)`` padded with -1.
        k: number of places that count.

    Returns:
        Float64 ``(B,)`` of 0 and 1; 0 for a user without ground truth, whom the caller should leave out of means.

    Raises:
        ValueError: if k is not positive, or if ``ranked`` and ``ground_truth`` differ in users.

    >>> hit_rate(torch.tensor([[3, 1, 2], [3, 1, 2]]), torch.tensor([[1, 5], [4, -1]]), k=2)
    tensor([1., 0.], dtype=torch.float64)
    """
    hits, _ = _hits(ranked, ground_truth, k)
    return hits.any(1).to(torch.float64)


def _order_rows(scores: np.ndarray) -> np.ndarray:
    """Stable descending order of each row by one plain sort of integers, several times faster than a stable argsort."""
    order = np.empty(scores.shape, dtype=np.int64)
    columns = np.arange(scores.shape[1])
    chunk = max(1, _SORTED_SCORES // max(1, scores.shape[1]))
    for start in range(0, len(scores), chunk):
        packed = order[start : start + chunk]
        np.left_shift(_sortable_bits(scores[start : start + chunk]), 32, out=packed, dtype=np.int64)
        packed |= columns
        packed.sort(axis=1)
        packed &= 0xFFFFFFFF
    return order


def _sortable_bits(scores: np.ndarray) -> np.ndarray:
    """Int32 keys that ascend as the float32 scores descend, NaN last."""
    # Subtracting from zero, unlike a sign flip, makes both zeros the same.
    negated = np.float32(0.0) - scores
    negated[np.isnan(negated)] = np.nan
    bits: np.ndarray = negated.view(np.int32)
    # Negative floats ascend in magnitude as their bits do: mirror them.
    bits ^= (bits >> 31) & 0x7FFFFFFF
    return bits


def _hits(ranked: Tensor, ground_truth: Sequence[Tensor] | Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Which of the first k places hit, float64 ``(B, min(k, C))``, and each size of ground truth, int64 ``(B,)``."""
    if k < 1:
        raise ValueError(f"Found k={k}, expected a positive number of places. Choose k >= 1, such as 20.")
    if len(ground_truth) != len(ranked):
        raise ValueError(
            f"Found {len(ranked)} ranked lists and {len(ground_truth)} ground truths, expected one of each for a user."
            " Give users without ground truth an empty one, or leave them out of both."
        )
    truth = _padded(ground_truth).to(ranked.device)
    top = ranked[:, :k].contiguous()
    position = torch.searchsorted(truth, top).clamp(max=truth.shape[1] - 1)
    hits = (truth.gather(1, position) == top) & (top >= 0)
    return hits.to(torch.float64), (truth >= 0).sum(1)


def _padded(ground_truth: Sequence[Tensor] | Tensor) -> Tensor:
    """Ground truth as ascending rows, int64 ``(B, G + 1)``, with at least one -1 so that no row is empty."""
    if not isinstance(ground_truth, Tensor):
        rows = list(ground_truth)
        ground_truth = pad_sequence(rows, True, -1) if rows else torch.empty(0, 0, dtype=torch.long)
    return torch.nn.functional.pad(ground_truth.long(), (1, 0), value=-1).sort(1).values
