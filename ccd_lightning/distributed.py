"""The few collectives that rankings and objectives need; with one process they cost nothing."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce

from ccd_lightning.types import chunks


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """Index of this process among them."""
    return dist.get_rank() if world_size() > 1 else 0


def own_chunks(count: int, size: int) -> Iterator[slice]:
    """The slices of ``range(count)`` that this process works on; together the processes cover it once."""
    for index, piece in enumerate(chunks(count, size)):
        if index % world_size() == process_rank():
            yield piece


def share_rows(table: Tensor) -> Tensor:
    """Complete a table of which each process filled its own rows and left the others zero, in place."""
    if world_size() > 1:
        dist.all_reduce(table)
    return table


def gather_tables(table: Tensor) -> Tensor:
    """Stack the tables of all processes: ``(rows, n)`` becomes ``(rows, world * n)``."""
    if world_size() == 1:
        return table
    tables = [torch.empty_like(table) for _ in range(world_size())]
    dist.all_gather(tables, table.contiguous())
    return torch.cat(tables, dim=-1)


def global_sum(value: Tensor) -> Tensor:
    """Sum over the processes; gradients flow back to each process's own part."""
    if world_size() == 1:
        return value
    total: Tensor = all_reduce(value)  # type: ignore[no-untyped-call]
    return total
