"""A source: events of a SQLite data base, one block a month."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import polars as pl

from ccd_lightning.data import StreamSource


class SQLiteLog(StreamSource):
    """Reads the table `events(user, item, month)`; every tenth event of a month tests, the next one validates.

    Args:
        path: the data base.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def table(self) -> pl.DataFrame:
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            events = pl.read_database("SELECT user, item, month FROM events ORDER BY month, rowid", connection)
        place = pl.int_range(pl.len()).over("month") % 10
        split = (
            pl.when(place == 0).then(pl.lit("test")).when(place == 1).then(pl.lit("valid")).otherwise(pl.lit("train"))
        )
        return events.select("user", "item", block=pl.col("month").rank("dense").cast(pl.Int64) - 1, split=split)
