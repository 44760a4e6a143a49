"""Reading tables from files that may not be what they say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_PARQUET_MAGIC = b"PAR1"
# What pyarrow and polars raise on a damaged file, by where the damage is.
_DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    MemoryError,
    RuntimeError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)
_LONGEST_REASON = 200
_NO_SEPARATOR = "\x1f"


def read_table(
    path: Path,
    separator: str | None = None,
    has_header: bool = True,
    columns: Sequence[str] | None = None,
    option: str = "the source's `path`",
) -> pl.DataFrame:
    """Read a Parquet or text table.

    A text file's column is one of integers only if each of its values is written as that integer would be: ``007`` and ``7``
    may be two users, and an id must come back as its file has it.

    Args:
        path: a ``.parquet``, ``.csv`` or ``.tsv`` file, or any text file if ``separator`` is given.
        separator: what stands between two values of a text file, of any length; ``None`` goes by the suffix.
        has_header: whether a text file's first line names the columns.
        columns: names of a text file's first columns, in place of the header's.
        option: what named the path, for messages.

    Raises:
        ValueError: if there is no such file, its suffix is not known, or its content is something else.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder, but a file is needed. Name one file in {option}.")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file. Check {option}.")
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty, but a table is needed. Check what wrote it.")
    if separator is None and path.suffix not in {*_SEPARATORS, ".parquet"}:
        raise ValueError(
            f"{path}: the suffix {path.suffix!r} is not known; expected .parquet, .csv or .tsv."
            " Rename the file, or name the `separator` of a text file where the source has this argument."
        )
    if separator is None and path.suffix == ".parquet":
        return read_parquet(path)
    _require_text(path)
    try:
        return _read_text(path, separator or _SEPARATORS[path.suffix], has_header, columns)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ValueError(
            f"{path} cannot be read as a text table: {_reason(error)}. Write the file again, as UTF-8 text."
        ) from error


def read_parquet(path: Path) -> pl.DataFrame:
    """Read a Parquet table whose content is not to be trusted.

    Args:
        path: the file.

    Raises:
        ValueError: if it is something else, or damaged.
    """
    # Only Parquet needs pyarrow. The reader of polars aborts the whole process on some damaged files.
    from pyarrow.parquet import ParquetFile

    try:
        _require_parquet(path)
        with ParquetFile(path) as file:
            table = file.read()
        table.validate(full=True)
        return pl.DataFrame(table)
    except _DAMAGE as error:
        raise ValueError(f"{path} cannot be read as Parquet: {_reason(error)}. Write the file again.") from error


def _reason(error: BaseException) -> str:
    """The first line; what follows is advice to programmers, and may quote half the file."""
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return first if len(first) <= _LONGEST_REASON else f"{first[:_LONGEST_REASON]}..."


def _read_text(path: Path, separator: str, has_header: bool, columns: Sequence[str] | None) -> pl.DataFrame:
    names = None if columns is None else list(columns)
    read = _read_separated if len(separator) == 1 else _read_split
    table = read(path, separator, has_header)
    if names is not None and len(names) > table.width:
        raise ValueError(
            f"{path} has {table.width} columns, but `columns` names {len(names)}."
            " Check `separator`, or name fewer columns."
        )
    return table if names is None else table.rename(dict(zip(table.columns, names, strict=False)))


def _read_separated(path: Path, separator: str, has_header: bool) -> pl.DataFrame:
    """Read with the types that polars finds, but integers first as text: once parsed, nothing tells how they were written."""
    types = pl.scan_csv(path, separator=separator, has_header=has_header, infer_schema_length=None).collect_schema()
    integers = [name for name, kind in types.items() if kind.is_integer()]
    as_text = {**types, **dict.fromkeys(integers, pl.String())}
    table = pl.read_csv(path, separator=separator, has_header=has_header, schema=as_text)
    return table.with_columns(narrowed(table[name]) for name in integers)


def _read_split(path: Path, separator: str, has_header: bool) -> pl.DataFrame:
    """Read separators that polars does not take, being longer than one byte (MovieLens: ``::``)."""
    lines = pl.read_csv(
        path, separator=_NO_SEPARATOR, has_header=False, quote_char=None, schema={"line": pl.String}
    ).to_series()
    lines = lines.drop_nulls()
    names = lines[0].split(separator)
    if not has_header:
        names = [f"column_{index + 1}" for index in range(len(names))]
    fields = lines[1 if has_header else 0 :].str.split_exact(separator, len(names) - 1).struct.unnest()
    fields.columns = names
    return fields.with_columns(narrowed(column) for column in fields)


def narrowed(column: pl.Series) -> pl.Series:
    """Integers if that loses nothing, not even a leading zero, and the column itself otherwise."""
    if column.dtype != pl.String:
        return column
    numbers = column.cast(pl.Int64, strict=False)
    return numbers if numbers.cast(pl.String).equals(column) else column


def _require_parquet(path: Path) -> None:
    with path.open("rb") as file:
        begins = file.read(4) == _PARQUET_MAGIC
        file.seek(-min(4, path.stat().st_size), 2)
        ends = file.read(4) == _PARQUET_MAGIC
    if not begins:
        raise OSError("although it is named .parquet, its content is not Parquet")
    if not ends:
        raise OSError("it is truncated, its end is missing")


def _require_text(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(8192)
    if start.startswith(_PARQUET_MAGIC) or b"\x00" in start:
        found = "Parquet" if start.startswith(_PARQUET_MAGIC) else "binary"
        raise ValueError(
            f"{path} should be a text table, but its content is {found}."
            " Give it the suffix that it is, or save it as UTF-8 text."
        )
