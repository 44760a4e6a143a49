"""Streams that are already cut into blocks and splits."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from ccd_lightning.data.sources import StreamSource
from ccd_lightning.data.tables import read_table


class BlockTable(StreamSource):
    """A table with the columns ``user``, ``item``, ``block`` and ``split``.

    Args:
        path: a ``.parquet``, ``.csv`` or ``.tsv`` file. Rows are sorted by ``block``, which counts from 0 without gaps;
            ``split`` is ``train``, ``valid`` or ``test``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def table(self) -> pl.DataFrame:
        """The rows of the file."""
        return read_table(self.path)

    def describe(self) -> str:
        """The file's path."""
        return str(self.path)
