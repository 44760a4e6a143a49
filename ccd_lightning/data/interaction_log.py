"""Streams made from a raw log of timestamped events."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from ccd_lightning.checks import require_whole
from ccd_lightning.data.id_map import as_raw_ids
from ccd_lightning.data.sources import StreamSource
from ccd_lightning.data.splitting import (
    DROPPED,
    SPLIT_WORDS,
    Integers,
    blocks_by_count,
    blocks_by_period,
    in_whole_periods,
    k_core,
    split_per_user,
)
from ccd_lightning.data.tables import read_table
from ccd_lightning.data.times import as_datetimes, as_times
from ccd_lightning.data.validation import require_columns, require_no_null


class InteractionLog(StreamSource):
    """Raw events, filtered, cut into chronological blocks and split per user.

    The first of repeated (user, item) pairs is kept, then a k-core of users and items. Blocks are cut by count, or by
    calendar period if ``period`` is given. Inside a block, a tenth of each user's items (one at least) is for testing
    and as many for validation.

    A run that is to be resumed when the log has grown needs blocks that stay as they are: give ``period``, and set
    ``core`` to 0, since later events may lift more users and items into the k-core. If the log is read while its last
    period is still filling, set ``whole_periods`` too.

    Args:
        path: a ``.parquet``, ``.csv`` or ``.tsv`` file, or another text file if ``separator`` is given.
        user: name of the column of users.
        item: name of the column of items.
        time: name of the column of times: numbers (seconds since 1970 if ``period`` is given) or dates.
        separator: what stands between two values of a text file, such as ``"::"``; by default it goes by the suffix.
        has_header: whether a text file's first line names the columns.
        columns: names of a text file's columns, for files without a header.
        core: interactions that each user and each item must have; 0 keeps all.
        base_fraction: share of the interactions in block 0, if blocks are cut by count.
        blocks: blocks of equal size after block 0, if blocks are cut by count.
        period: length of a block, such as ``1mo``, ``1w`` or ``1q``; by default blocks are cut by count.
        seed: of the shuffling before the per-user split.
        whole_periods: leave out the last period, which may still be filling, until the log holds an event of a later one.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        user: str = "user",
        item: str = "item",
        time: str = "time",
        separator: str | None = None,
        has_header: bool = True,
        columns: Sequence[str] | None = None,
        core: int = 5,
        base_fraction: float = 0.5,
        blocks: int = 5,
        period: str | None = None,
        seed: int = 0,
        whole_periods: bool = False,
    ) -> None:
        if not 0 < base_fraction <= 1 or blocks < 0 or core < 0:
            raise ValueError(
                f"`base_fraction` is {base_fraction}, `blocks` {blocks} and `core` {core}; expected a fraction above 0"
                " and at most 1, and whole numbers from 0 on. Mend the source's arguments."
            )
        require_whole("seed", seed, 0)
        if separator == "":
            raise ValueError("`separator` is empty, but values must be told apart: name it, or leave it out.")
        if whole_periods and period is None:
            raise ValueError("`whole_periods` needs a `period`: set one, such as 1mo, or leave `whole_periods` out.")
        self.path = Path(path)
        self.user, self.item, self.time = user, item, time
        self.separator, self.has_header, self.columns = separator, has_header, columns
        self.core, self.base_fraction, self.blocks, self.period, self.seed = core, base_fraction, blocks, period, seed
        self.whole_periods = whole_periods

    def table(self) -> pl.DataFrame:
        """The events in order of time, with their blocks and splits."""
        events = self._filtered(self._events())
        users, items = _codes(events["user"]), _codes(events["item"])
        blocks = self._blocks(events["time"])
        splits = np.full(events.height, DROPPED)
        for block in range(blocks[-1] + 1):
            rows = np.flatnonzero(blocks == block)
            # A generator for each block: blocks that come later leave the splits of this one as they are.
            splits[rows] = split_per_user(users[rows], items[rows], np.random.default_rng([self.seed, block]))
        kept = splits != DROPPED
        words = pl.Series(SPLIT_WORDS).gather(splits[kept])
        return events.select("user", "item").filter(kept).with_columns(block=pl.Series(blocks[kept]), split=words)

    def describe(self) -> str:
        """The file's path."""
        return str(self.path)

    def _events(self) -> pl.DataFrame:
        """Distinct pairs by time; ties stay in the order of the file."""
        raw = read_table(self.path, self.separator, self.has_header, self.columns)
        require_columns(raw, (self.user, self.item, self.time), self.describe())
        for column in (self.user, self.item):
            require_no_null(raw[column], self.describe())
        events = pl.DataFrame(
            {
                "user": as_raw_ids(raw[self.user], self.describe()),
                "item": as_raw_ids(raw[self.item], self.describe()),
                "time": as_times(raw[self.time], self.describe()),
            }
        )
        ordered = events.sort("time", maintain_order=True)
        if self.period is not None and self.whole_periods:
            times = as_datetimes(ordered["time"], self.describe())
            ordered = ordered.filter(in_whole_periods(times, self.period, self.describe()))
        return ordered.unique(["user", "item"], keep="first", maintain_order=True)

    def _filtered(self, events: pl.DataFrame) -> pl.DataFrame:
        kept = events.filter(k_core(_codes(events["user"]), _codes(events["item"]), self.core))
        if kept.is_empty():
            raise ValueError(
                f"{self.path}: none of the {events.height} interactions is left by the {self.core}-core filter, but a"
                " stream needs some. Choose a smaller `core`."
            )
        return kept

    def _blocks(self, times: pl.Series) -> Integers:
        if self.period is None:
            return blocks_by_count(len(times), self.base_fraction, self.blocks)
        return blocks_by_period(as_datetimes(times, self.describe()), self.period, self.describe())


def _codes(values: pl.Series) -> Integers:
    """Numbers from 0 in place of raw ids, so that they can be counted."""
    return values.rank("dense").to_numpy().astype(np.int64) - 1
