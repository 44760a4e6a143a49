"""Embeddings of entities that a block brings, from the old entities around them.

Source: "Continual Collaborative Distillation for Recommender System" (Lee, Kang, Kweon, Yu, KDD 2024).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ccd_lightning.functional._sparse import row_chunks, to_scipy


def init_new_rows(
    interactions: Tensor, old_own: Tensor, old_other: Tensor | None, topk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of new users (or items) from their neighbourhood in the present block.

    One hop: the mean embedding of the old items that a new user interacted with, 0 if there is none. Two hops: the
    mean embedding of the ``topk`` most popular old users who share an item with it, filled up with the most popular
    other old users. Popularity is the number of interactions in the block; ties go to the lower id.

    Args:
        interactions: 0/1 matrix of the present block, dense or sparse ``(N, M)``; own kind in rows, old ones first.
        old_own: embeddings of the old entities of the own kind, float ``(n, D)``, the first n rows.
        old_other: embeddings of the old entities of the other kind, float ``(m, D)``, the first m columns;
            ``None`` if there are none to use, and then two hops alone count.
        topk: number of old entities of the own kind to average.

    Returns:
        ``(new, one_hop, two_hop)``, each ``(N - n, D)`` in the dtype and on the device of ``old_own``; ``new`` is the
        mean of the other two.

    Raises:
        ValueError: if ``topk`` is not positive, or if there are more old entities than rows or columns.

    >>> new, one_hop, two_hop = init_new_rows(
    ...     torch.tensor([[1, 0], [0, 1], [0, 1]]), torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [5.0]]), topk=1
    ... )
    >>> new, one_hop, two_hop
    (tensor([[4.]]), tensor([[5.]]), tensor([[3.]]))
    """
    _check_arguments(interactions, old_own, old_other, topk)
    matrix = to_scipy(interactions)
    two_hop = _like(_two_hop(matrix, _numbers(old_own), topk), old_own)
    if old_other is None:
        return two_hop, torch.zeros_like(two_hop), two_hop
    one_hop = _like(_one_hop(matrix[len(old_own) :], _numbers(old_other)), old_own)
    return (one_hop + two_hop) / 2, one_hop, two_hop


def _one_hop(new_rows: Any, old_other: np.ndarray) -> np.ndarray:
    """Mean embedding of the old entities of the other kind that each new row touches."""
    touched = new_rows[:, : len(old_other)]
    means: np.ndarray = (touched @ old_other) / np.maximum(touched.sum(1), 1.0)[:, None]
    return means


def _two_hop(matrix: Any, old_own: np.ndarray, topk: int) -> np.ndarray:
    """Mean embedding of the chosen old entities of the own kind, in chunks of new rows."""
    old_rows, new_rows = matrix[: len(old_own)], matrix[len(old_own) :]
    # With the old entities ordered by popularity, "most popular" is "first column" in all that follows.
    by_popularity = np.argsort(-old_rows.sum(1), kind="stable")
    # No new row can choose more of a column's old rows than the first topk of them.
    old_columns = _first_of_rows(old_rows[by_popularity].T.tocsr(), topk)
    embeddings = old_own[by_popularity]
    means = np.zeros((new_rows.shape[0], old_own.shape[1]))
    # A new row costs its products with old rows, and its share of the fill-up table.
    for part in row_chunks(new_rows @ np.diff(old_columns.indptr) + min(topk, len(old_own))):
        chosen = _choose(new_rows[part] @ old_columns, topk)
        means[part] = (chosen @ embeddings) / np.maximum(chosen.sum(1), 1.0)[:, None]
    return means


def _first_of_rows(matrix: Any, count: int) -> Any:
    """A CSR matrix with at most the first ``count`` entries of each row."""
    matrix.sort_indices()
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    kept = np.arange(matrix.nnz) - matrix.indptr[row] < count
    pointers = np.concatenate([[0], np.bincount(row[kept], minlength=matrix.shape[0]).cumsum()])
    return sparse.csr_array((matrix.data[kept], matrix.indices[kept], pointers), shape=matrix.shape)


def _choose(shared: Any, topk: int) -> Any:
    """0/1 rows: the first ``topk`` non-zero columns of each row, filled up with the first of its zero columns."""
    shared.sort_indices()
    row = np.repeat(np.arange(shared.shape[0]), np.diff(shared.indptr))
    place = np.arange(shared.nnz) - shared.indptr[row]
    row, column = row[place < topk], shared.indices[place < topk]
    # Fewer than topk columns are taken where a row needs filling: its fill-ups are among the first topk columns.
    free = np.ones((shared.shape[0], min(topk, shared.shape[1])), dtype=bool)
    early = column < free.shape[1]
    free[row[early], column[early]] = False
    missing = topk - np.bincount(row, minlength=shared.shape[0])
    filled_row, filled_column = np.nonzero(free & (free.cumsum(1) <= missing[:, None]))
    rows, columns = np.concatenate([row, filled_row]), np.concatenate([column, filled_column])
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shared.shape)


def _check_arguments(interactions: Tensor, old_own: Tensor, old_other: Tensor | None, topk: int) -> None:
    if topk < 1:
        raise ValueError(f"Found topk={topk}, expected a positive number of neighbours. The paper's value is 20.")
    columns = 0 if old_other is None else len(old_other)
    if len(old_own) > interactions.shape[0] or columns > interactions.shape[-1]:
        raise ValueError(
            f"Found interactions of shape {tuple(interactions.shape)}, expected at least {len(old_own)} rows and"
            f" {columns} columns, as many as there are old embeddings. Size the matrix by all the known entities,"
            " own kind in rows."
        )


def _numbers(embeddings: Tensor) -> np.ndarray:
    numbers: np.ndarray = embeddings.detach().cpu().to(torch.float64).numpy()
    return numbers


def _like(values: np.ndarray, reference: Tensor) -> Tensor:
    return torch.from_numpy(values).to(device=reference.device, dtype=reference.dtype)
