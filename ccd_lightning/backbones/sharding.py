"""Tables whose rows are dealt out to processes for the time of a fit, by torch's DTensor."""

from __future__ import annotations

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from ccd_lightning.backbones.base import Backbone


def deal_out_rows(backbone: Backbone, mesh: DeviceMesh) -> None:
    """Leave each process its share of the tables' rows, and of their gradients and optimizer states.

    Models that do not learn :attr:`~ccd_lightning.backbones.Backbone.row_by_row` stay whole on every process.

    Args:
        backbone: the same on every process.
        mesh: the processes that share it, one-dimensional.
    """
    if not backbone.row_by_row:
        return
    for name in backbone.tables():
        table = getattr(backbone, name)
        if not isinstance(table, DTensor):
            backbone.replace_table(name, distribute_tensor(table.detach(), mesh, [Shard(0)]))


def gather_rows_back(backbone: Backbone) -> None:
    """Make every process's tables whole again; nothing to do for those that are."""
    for name in backbone.tables():
        table = getattr(backbone, name)
        if isinstance(table, DTensor):
            backbone.replace_table(name, table.full_tensor().detach())
