"""The few collectives that rankings and objectives need; with one process they cost nothing.

They run over the processes that learn different data. Under tensor parallelism that is not all of them: those that hold
the shards of one model learn the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce

from ccd_lightning.types import chunks

_group: dist.ProcessGroup | None = None


def share_data_over(group: dist.ProcessGroup | None) -> None:
    """Say which processes learn different data: those of a group, or all of them for ``None``."""
    global _group
    # Each fit of a Trainer makes new groups of the same processes, and Lightning's logger insists on one.
    if group is None or _group is None or dist.get_process_group_ranks(group) != dist.get_process_group_ranks(_group):
        _group = group


def data_group() -> dist.ProcessGroup | None:
    """The processes that learn different data; ``None`` stands for all of them."""
    return _group


def world_size() -> int:
    """Number of processes that learn different data."""
    return dist.get_world_size(_group) if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """Index of this process among them."""
    return dist.get_rank(_group) if world_size() > 1 else 0


def own_chunks(count: int, size: int) -> Iterator[slice]:
    """The slices of ``range(count)`` that this process works on; together the processes cover it once."""
    for index, piece in enumerate(chunks(count, size)):
        if index % world_size() == process_rank():
            yield piece


def share_rows(table: Tensor) -> Tensor:
    """Complete a table of which each process filled its own rows and left the others zero, in place."""
    if world_size() > 1:
        dist.all_reduce(table, group=_group)
    return table


def gather_tables(table: Tensor) -> Tensor:
    """Stack the tables of all processes: ``(rows, n)`` becomes ``(rows, world * n)``."""
    if world_size() == 1:
        return table
    tables = [torch.empty_like(table) for _ in range(world_size())]
    dist.all_gather(tables, table.contiguous(), group=_group)
    return torch.cat(tables, dim=-1)


def global_sum(value: Tensor) -> Tensor:
    """Sum over the processes; gradients flow back to each process's own part."""
    if world_size() == 1:
        return value
    total: Tensor = all_reduce(value, group=_group or dist.group.WORLD)  # type: ignore[no-untyped-call]
    return total
