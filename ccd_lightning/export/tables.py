"""The tables of an export: ids, what users have seen, what is popular."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import torch

from ccd_lightning.data import History, IdMap, Stream


def write_ids(stream: Stream, num_users: int, num_items: int, folder: Path) -> None:
    """Write ``users.parquet`` and ``items.parquet``: columns ``raw`` and ``id``, the row in the model's tables.

    Args:
        stream: the data; it may know more users and items than the model.
        num_users: users that the model knows.
        num_items: items that the model knows.
        folder: where the files shall stand.
    """
    for name, ids, count in (("users", stream.users, num_users), ("items", stream.items, num_items)):
        IdMap(ids.raw.head(count)).save(folder / f"{name}.parquet")


def write_seen(history: History, path: Path) -> None:
    """Write the train interactions of all the blocks so far: ids in columns ``user`` and ``item``, int32, ascending.

    Args:
        history: the blocks that the model has learned.
        path: the file.
    """
    seen = history.observed("cumulative")
    columns = {"user": seen.rows, "item": seen.columns}
    pl.DataFrame({name: ids.to(torch.int32).numpy() for name, ids in columns.items()}).write_parquet(path)


def write_popular(history: History, path: Path) -> None:
    """Write every item by how many train interactions it has in the last block: columns ``item`` (id), ``count``.

    Items of equal counts stand in order of appearance.

    Args:
        history: the blocks that the model has learned.
        path: the file.
    """
    counts = torch.bincount(history.block.train.items, minlength=history.block.num_items)
    order = counts.argsort(descending=True, stable=True)
    columns = {"item": order, "count": counts[order]}
    pl.DataFrame({name: values.to(torch.int32).numpy() for name, values in columns.items()}).write_parquet(path)
