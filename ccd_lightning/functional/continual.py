"""Summaries of a stream from its performance matrix: entry (k, j) is a metric on block j after block k is learned.

Learning average, retained average and their harmonic mean are those of "Continual Collaborative Distillation for
Recommender System" (Lee, Kang, Kweon, Yu, KDD 2024); forgetting is that of Chaudhry et al., ECCV 2018, backward and
forward transfer are those of Lopez-Paz and Ranzato, NeurIPS 2017 (forward transfer without a random baseline).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

PerformanceMatrix: TypeAlias = Sequence[Sequence[float]] | Tensor | np.ndarray
"""Rows k = 0, ..., K-1 with k + 1 entries or more, or a square array; what lies above the diagonal is ignored.

An entry is NaN where a block asks nobody; means are over the other entries.
"""

Value = TypeVar("Value", float, Tensor)


def learning_average(matrix: PerformanceMatrix) -> Tensor:
    """Mean performance on each block just after learning it, ``LA_k = mean_{j<=k} A[j][j]``: plasticity.

    Args:
        matrix: performance matrix A with K rows.

    Returns:
        Float64 ``(K,)``, the value after each block; NaN as long as no block has asked anybody.

    >>> learning_average([[0.2], [0.1, 0.4]])
    tensor([0.2000, 0.3000], dtype=torch.float64)
    """
    diagonal = _square(matrix).diagonal()
    return diagonal.nan_to_num(nan=0.0).cumsum(0) / (~diagonal.isnan()).cumsum(0)


def retained_average(matrix: PerformanceMatrix) -> Tensor:
    """Mean performance on all the blocks so far, ``RA_k = mean_{j<=k} A[k][j]``: stability.

    Args:
        matrix: performance matrix A with K rows.

    Returns:
        Float64 ``(K,)``, the value after each block; NaN as long as no block has asked anybody.

    >>> retained_average([[0.2], [0.1, 0.4]])
    tensor([0.2000, 0.2500], dtype=torch.float64)
    """
    square = _square(matrix)
    asked = _below(square, 0) & ~square.isnan()
    return torch.where(asked, square, 0.0).sum(1) / asked.sum(1)


def h_mean(learning: Value, retained: Value) -> Value:
    """Harmonic mean of learning and retained average, 0 if both are 0.

    Args:
        learning: LA, a float or float tensor.
        retained: RA, of the same kind and shape.

    Returns:
        ``2 LA RA / (LA + RA)``, element by element.

    >>> round(h_mean(0.1, 0.3), 4), h_mean(0.0, 0.0)
    (0.15, 0.0)
    """
    total = learning + retained
    if isinstance(total, Tensor):
        return 2 * learning * retained / torch.where(total == 0, 1.0, total)
    return 2 * learning * retained / (total or 1.0)


def forgetting(matrix: PerformanceMatrix) -> Tensor:
    """Mean loss against the best past performance on the blocks before the present one.

    ``F_k = mean_{j<k} (max_{j<=l<k} A[l][j] - A[k][j])``, 0 at k = 0.

    Args:
        matrix: performance matrix A with K rows.

    Returns:
        Float64 ``(K,)``, the value after each block.

    >>> forgetting([[0.4], [0.3, 0.5], [0.1, 0.5, 0.6]])
    tensor([0.0000, 0.1000, 0.1500], dtype=torch.float64)
    """
    square = _square(matrix)
    best = torch.where(_below(square, 0) & ~square.isnan(), square, -torch.inf).cummax(0).values
    before = torch.cat([best[:1], best[:-1]])
    return _mean_below_diagonal(before - square)


def backward_transfer(matrix: PerformanceMatrix) -> Tensor:
    """Mean change on earlier blocks since they were learned, ``mean_{j<k} (A[k][j] - A[j][j])``, 0 at k = 0.

    Args:
        matrix: performance matrix A with K rows.

    Returns:
        Float64 ``(K,)``, the value after each block; negative if the model forgets.

    >>> backward_transfer([[0.4], [0.3, 0.5], [0.1, 0.6, 0.6]])
    tensor([ 0.0000, -0.1000, -0.1000], dtype=torch.float64)
    """
    square = _square(matrix)
    return _mean_below_diagonal(square - square.diagonal())


def forward_transfer(matrix: Tensor | np.ndarray) -> Tensor:
    """Mean performance on each block just before learning it, ``mean_{1<=j<=k} A[j-1][j]``.

    Args:
        matrix: full square matrix, float ``(K, K)``, NaN where not measured.

    Returns:
        Float64 ``(K,)``, the value after each block; NaN at k = 0, and from the first missing entry on.

    >>> forward_transfer(torch.tensor([[0.4, 0.1], [0.3, 0.5]]))
    tensor([   nan, 0.1000], dtype=torch.float64)
    """
    ahead = _square(matrix).diagonal(1)
    return torch.cat([torch.full((1,), torch.nan, dtype=torch.float64), ahead.cumsum(0) / _counts(ahead)])


def _square(matrix: PerformanceMatrix) -> Tensor:
    """The matrix as float64 ``(K, K)``; entries that ragged rows lack are NaN."""
    if isinstance(matrix, np.ndarray | Tensor):
        square = torch.as_tensor(matrix).detach().cpu().to(torch.float64)
        if square.dim() != 2 or square.shape[0] != square.shape[1]:
            raise ValueError(
                f"Found a performance matrix of shape {tuple(square.shape)}, expected a square one."
                " Give it one row and one column for each block."
            )
        return square
    size = len(matrix)
    square = torch.full((size, size), torch.nan, dtype=torch.float64)
    for index, row in enumerate(matrix):
        if len(row) <= index:
            raise ValueError(
                f"Found {len(row)} entries in row {index} of the performance matrix, expected at least {index + 1}."
                f" Evaluate the model after block {index} on all the blocks up to it."
            )
        known = min(len(row), size)
        square[index, :known] = torch.tensor([float(value) for value in row[:known]], dtype=torch.float64)
    return square


def _below(square: Tensor, diagonal: int) -> Tensor:
    """Mask of the entries on and below a diagonal."""
    return torch.ones_like(square, dtype=torch.bool).tril(diagonal)


def _mean_below_diagonal(square: Tensor) -> Tensor:
    """Mean of each row's entries left of the diagonal, 0 where there is none."""
    asked = _below(square, -1) & ~square.isnan()
    return torch.where(asked, square, 0.0).sum(1) / asked.sum(1).clamp(min=1)


def _counts(values: Tensor) -> Tensor:
    return torch.arange(1, values.shape[0] + 1, dtype=torch.float64)
