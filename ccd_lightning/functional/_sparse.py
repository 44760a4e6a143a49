"""Bridges between torch and scipy sparse matrices, and the cutting of sparse products into bounded pieces."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

# Entries of a sparse product held at a time: about 100 MB with their indices.
PRODUCT_ENTRIES = 8_000_000


def to_scipy(interactions: Tensor) -> Any:
    """The pattern of a matrix as scipy CSR, float64, every stored entry 1.

    Args:
        interactions: any 0/1 matrix ``(N, M)``, dense or sparse; repeated sparse entries count once.

    Returns:
        ``scipy.sparse.csr_array`` of shape ``(N, M)`` with sorted indices.

    Raises:
        ValueError: if the input is not a matrix.
    """
    if interactions.dim() != 2:
        raise ValueError(
            f"Found interactions with {interactions.dim()} dimensions, expected a matrix."
            " Pass one row for each entity of the own kind and one column for each of the other kind."
        )
    matrix = interactions.detach().cpu()
    if matrix.layout == torch.strided:
        rows, columns = matrix.nonzero(as_tuple=True)
    else:
        entries = matrix.to_sparse().coalesce()
        rows, columns = entries.indices()[:, entries.values() != 0]
    return pattern(rows.numpy(), columns.numpy(), tuple(matrix.shape))


def pattern(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...]) -> Any:
    """A 0/1 scipy CSR matrix, float64, from the positions of its ones; repeated positions count once."""
    # Without duplicates each sum is 1, and with them the sum is only a count to be overwritten.
    matrix = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def weighted(rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, shape: tuple[int, ...]) -> Any:
    """A scipy CSR matrix, float64, from the positions of positive entries; of repeated positions the largest counts."""
    if not len(rows):
        return sparse.csr_array(shape)
    places = rows.astype(np.int64) * shape[1] + columns
    order = np.argsort(places, kind="stable")
    places = places[order]
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    largest = np.maximum.reduceat(weights[order].astype(np.float64), starts)
    return sparse.csr_array((largest, np.divmod(places[starts], shape[1])), shape=shape)


def to_torch_csr(matrix: Any, device: torch.device) -> Tensor:
    """A scipy CSR matrix as a torch sparse CSR tensor: float32 values, and int32 indices where they suffice.

    Products with int32 indices are several times faster than with int64, which torch's libraries do not take as they are.
    """
    index = np.int32 if max(matrix.nnz, *matrix.shape) < 2**31 else np.int64
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(index)),
            torch.from_numpy(matrix.indices.astype(index)),
            torch.from_numpy(matrix.data.astype(np.float32)),
            size=matrix.shape,
            device=device,
            check_invariants=True,
        )


def row_chunks(work: np.ndarray, limit: int = PRODUCT_ENTRIES) -> Iterator[slice]:
    """Consecutive rows whose work together is at most about ``limit``, each row in exactly one chunk.

    Args:
        work: work of each row, ``(N,)``, not negative.
        limit: work of a chunk; a chunk exceeds it by one row at most.

    >>> list(row_chunks(np.array([3, 3, 3, 9, 1]), limit=6))
    [slice(0, 1, None), slice(1, 3, None), slice(3, 5, None)]
    """
    chunk_of_row = np.cumsum(work, dtype=np.float64) // limit
    starts = np.flatnonzero(np.diff(chunk_of_row, prepend=-1.0)).tolist()
    for start, stop in pairwise([*starts, len(work)]):
        yield slice(start, stop)
