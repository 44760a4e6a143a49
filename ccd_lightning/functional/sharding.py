"""Rows and products of tables whose rows are dealt out to processes (DTensor)."""

from __future__ import annotations

import torch.nn.functional as nnf
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate


def rows_of_shards(table: DTensor, ids: Tensor) -> Tensor:
    """Rows that the processes look up in their own shards and add up; the same on every process.

    Args:
        table: float ``(N, D)``, sharded by rows.
        ids: the same on every process, int64, of any shape.

    Returns:
        Float ``(*ids.shape, D)``; its gradient reaches the shard that holds a row.
    """
    found: DTensor = nnf.embedding(_everywhere(ids, table), table)  # type: ignore[assignment]
    return found.full_tensor()


def products_with_shards(query: Tensor, table: DTensor) -> Tensor:
    """Inner products with all the rows, float ``(B, N)``, the same on every process.

    Args:
        query: the same on every process, float ``(B, D)``.
        table: float ``(N, D)``, sharded by rows.
    """
    found: DTensor = _everywhere(query, table) @ table.T  # type: ignore[assignment]
    return found.full_tensor()


def _everywhere(value: Tensor, table: DTensor) -> Tensor:
    placements = [Replicate()] * table.device_mesh.ndim
    return DTensor.from_local(value, table.device_mesh, placements, run_check=False)
