"""Times of events, as numbers or as dates."""

from __future__ import annotations

import polars as pl

from ccd_lightning.data.validation import first_row, require_no_null, shown

_LAST_PLAUSIBLE_SECOND = 1e11


def as_times(values: pl.Series, origin: str) -> pl.Series:
    """Times that can be sorted.

    Args:
        values: numbers, dates, or text that holds either.
        origin: what error messages call the log.

    Returns:
        Numbers as they are, or ``Datetime`` in microseconds without a time zone (UTC where there was one).

    Raises:
        ValueError: naming the first row whose time is missing or cannot be read, or if nothing tells days from months.
    """
    require_no_null(values, origin)
    if values.dtype == pl.String:
        _require_one_reading(values, origin)
    times = _from_text(values) if values.dtype == pl.String else values
    if times.dtype.is_numeric():
        row = first_row(times.is_null() | ~times.cast(pl.Float64).is_finite().fill_null(False))
    elif times.dtype == pl.Datetime or times.dtype == pl.Date:
        row = first_row(times.is_null())
    else:
        row = 1
    if row is not None:
        raise ValueError(
            f"{origin}, column `{values.name}`, row {row}: {shown(values[row - 1])} is no time; expected a finite number or"
            " a date such as 2024-05-31 12:00:00. Mend the value or leave the row out. Rows of data count from 1."
        )
    return times if times.dtype.is_numeric() else _in_utc(times)


def as_datetimes(times: pl.Series, origin: str) -> pl.Series:
    """Calendar times; numbers are seconds since 1970.

    Args:
        times: what `as_times` returned.
        origin: what error messages call the log.

    Raises:
        ValueError: if the numbers cannot be seconds, or are dates written as numbers.
    """
    if not times.dtype.is_numeric():
        return times
    seconds = times.cast(pl.Float64)
    if _are_dates(seconds):
        raise ValueError(
            f"{origin}: the time {int(times[0])} is a date written as a number, as are all the others, but with `period` numbers"
            " are seconds since 1970: write dates as 2024-05-31."
        )
    row = first_row(seconds.abs() > _LAST_PLAUSIBLE_SECOND)
    if row is not None:
        raise ValueError(
            f"{origin}: the time {times[row - 1]} is beyond the year 5000, but with `period` times are seconds since"
            " 1970. Divide milliseconds by 1000, or cut blocks by count (`period: null`)."
        )
    stamps: pl.Series = (seconds * 1e6).cast(pl.Int64).cast(pl.Datetime("us"))
    return stamps


def _are_dates(numbers: pl.Series) -> bool:
    """Whether all are days such as 20240531: as seconds they would lie in one summer of 1970."""
    if numbers.is_empty() or numbers.min() < 19_000_101 or numbers.max() > 21_001_231:  # type: ignore[operator]
        return False
    days = numbers.cast(pl.Int64)
    is_date = days.cast(pl.String).str.to_date("%Y%m%d", strict=False).is_not_null()
    return bool((is_date & (days == numbers)).all())


def _require_one_reading(values: pl.Series, origin: str) -> None:
    """Dates such as 03/04/2024 mean one day here and another there, unless one of them has a day beyond 12."""
    parts = (
        values.str.extract_groups(r"^\s*(\d{1,2})[/-](\d{1,2})[/-]\d{4}").struct.unnest().cast(pl.Int64, strict=False)
    )
    known = parts.drop_nulls()
    if len(known) and max(known.max().row(0)) <= 12:
        row = first_row(parts.to_series(0).is_not_null())
        assert row is not None
        raise ValueError(
            f"{origin}, column `{values.name}`, row {row}: {shown(values[row - 1])} begins with a day or with a month, and no row"
            " of the column tells which: write dates as 2024-05-31. Rows of data count from 1."
        )


def _from_text(values: pl.Series) -> pl.Series:
    """Numbers or dates, whichever the first row holds; null where a row holds something else."""
    numbers: pl.Series = values.cast(pl.Float64, strict=False)
    if values.is_empty() or numbers[0] is not None:
        return numbers
    try:
        dates: pl.Series = values.str.to_datetime(strict=False)
    except pl.exceptions.PolarsError:
        return numbers
    return dates


def _in_utc(times: pl.Series) -> pl.Series:
    if getattr(times.dtype, "time_zone", None) is not None:
        times = times.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    stamps: pl.Series = times.cast(pl.Datetime("us"))
    return stamps
