"""What a table must fulfil before blocks are cut from it: one clear error for each way to be wrong."""

from __future__ import annotations

from reprlib import Repr

import polars as pl

from ccd_lightning.data.id_map import as_raw_ids
from ccd_lightning.types import Split

COLUMNS = ("user", "item", "block", "split")
SPLITS = pl.Enum([split.value for split in Split])

_MOST_NAMES = 20
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 80

_EXACT = 2.0**53
"""Up to here every whole number is a float of its own."""


def checked_table(table: pl.DataFrame | pl.LazyFrame, origin: str) -> pl.DataFrame:
    """The table with its columns in their final types.

    Args:
        table: columns ``user``, ``item``, ``block``, ``split``, and any others; a LazyFrame is collected.
        origin: what error messages call the table.

    Returns:
        ``user`` and ``item`` as ``Int64`` or ``String``, ``block`` as ``Int64``, ``split`` as an ``Enum``.

    Raises:
        ValueError: naming the column and the row of the first thing that is wrong.
    """
    if isinstance(table, pl.LazyFrame):
        table = table.collect()
    if not isinstance(table, pl.DataFrame):
        raise ValueError(
            f"{origin} is a {type(table).__name__}, but a source's `table()` returns a polars DataFrame: convert it, such as with"
            " `polars.DataFrame(...)`."
        )
    require_columns(table, COLUMNS, origin)
    if table.is_empty():
        raise ValueError(f"{origin} holds no row, but block 0 needs train interactions. Check what wrote it.")
    for column in COLUMNS:
        require_no_null(table[column], origin)
    blocks = _checked_blocks(table["block"], origin)
    checked = pl.DataFrame(
        {
            "user": as_raw_ids(table["user"], origin),
            "item": as_raw_ids(table["item"], origin),
            "block": blocks,
            "split": _checked_splits(table["split"], origin),
        }
    )
    _require_train(checked, origin)
    return checked


def require_columns(table: pl.DataFrame, columns: tuple[str, ...], origin: str) -> None:
    """Refuse a table that lacks a column.

    Raises:
        ValueError: naming the missing columns and those that are there.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(
            f"{origin} has no column {_quoted(missing)}; it has {_quoted(table.columns)}, and"
            f" {_quoted(list(columns))} are needed. Rename its columns, or name them in the source's arguments."
        )


def require_no_null(values: pl.Series, origin: str) -> None:
    """Refuse a column with gaps: a blank text would make one user of all whom nobody has named.

    Raises:
        ValueError: naming the first row without a value.
    """
    missing = values.is_null()
    if values.dtype == pl.String:
        missing |= (values.str.strip_chars() == "").fill_null(True)
    row = first_row(missing)
    if row is not None:
        found = "null" if values[row - 1] is None else "blank"
        raise ValueError(
            f"{origin}, column `{values.name}`, row {row}: the value is missing ({found}), but every row needs one."
            " Fill it in or leave the row out. Rows of data count from 1."
        )


def first_row(mask: pl.Series) -> int | None:
    """Number of the first true row, counted from 1; ``None`` if there is none."""
    rows = mask.arg_true()
    return int(rows[0]) + 1 if len(rows) else None


def shown(value: object) -> str:
    """A value as Python writes it, in one line and cut if it is long: a field without an end may hold a whole file."""
    return " ".join(_SHORT.repr(value).split())


def _checked_blocks(values: pl.Series, origin: str) -> pl.Series:
    numbers = _cast(values, pl.Float64(), "whole numbers", origin)
    whole = numbers.is_finite() & (numbers == numbers.floor()) & (numbers.abs() < _EXACT)
    row = first_row(~whole.fill_null(False))
    if row is not None:
        raise ValueError(
            f"{origin}, column `block`, row {row}: {shown(values[row - 1])} is no whole number."
            " Number the blocks 0, 1, 2, ..."
        )
    blocks: pl.Series = numbers.cast(pl.Int64)
    if blocks[0] != 0:
        raise ValueError(f"{origin}, column `block`, row 1: the first block is {blocks[0]}. Count the blocks from 0.")
    steps = blocks.diff().fill_null(0)
    row = first_row(steps < 0)
    if row is not None:
        raise ValueError(
            f"{origin}, column `block`, row {row}: block {blocks[row - 1]} comes after block {blocks[row - 2]}, but"
            " time must not go backwards. Sort the rows by block."
        )
    row = first_row(steps > 1)
    if row is not None:
        raise ValueError(
            f"{origin}, column `block`, row {row}: block {blocks[row - 1]} follows block {blocks[row - 2]}, so block"
            f" {blocks[row - 2] + 1} is empty or skipped. Number the blocks without gaps."
        )
    return blocks


def _checked_splits(values: pl.Series, origin: str) -> pl.Series:
    words = _cast(values, pl.String(), "words", origin)
    known = list(SPLITS.categories)
    row = first_row(~words.is_in(known).fill_null(False))
    if row is not None:
        raise ValueError(
            f"{origin}, column `split`, row {row}: {shown(values[row - 1])} is no split; expected one of {_quoted(known)}."
            " Rename it."
        )
    splits: pl.Series = words.cast(SPLITS)
    return splits


def _cast(values: pl.Series, kind: pl.DataType, expected: str, origin: str) -> pl.Series:
    """Values as another type, null where that cannot be; nested types are refused as a whole."""
    refusal = ValueError(
        f"{origin}: column `{values.name}` holds {shown(str(values.dtype))[1:-1]}, but {expected} are needed. Convert the column"
        " before it is read."
    )
    if values.dtype.is_nested():
        raise refusal
    try:
        converted: pl.Series = values.cast(kind, strict=False)
    except pl.exceptions.PolarsError as error:
        raise refusal from error
    return converted


def _require_train(table: pl.DataFrame, origin: str) -> None:
    learns = table.group_by("block").agg((pl.col("split") == Split.TRAIN.value).any().alias("learns")).sort("block")
    row = first_row(~learns["learns"])
    if row is not None:
        raise ValueError(
            f"{origin}: block {row - 1} is empty of train rows, so nothing can be learned from it."
            " Merge it with a neighbour, or mark rows of it as `train`."
        )


def _quoted(names: list[str]) -> str:
    more = ["..."] if len(names) > _MOST_NAMES else []
    return ", ".join([f"`{shown(name)[1:-1]}`" for name in names[:_MOST_NAMES]] + more)
