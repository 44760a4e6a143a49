from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import polars as pl
import pytest

from ccd_lightning.data.times import as_datetimes, as_times


@pytest.mark.parametrize("values", [[3, 1], [0.5, -2.0], ["3", "1.5"]])
def test_as_times_takes_numbers(values):
    assert as_times(pl.Series("time", values), "log.csv").to_list() == [float(value) for value in values]


@pytest.mark.parametrize(
    "value",
    [
        datetime(2024, 5, 31, 12),
        datetime(2024, 5, 31, 12, tzinfo=timezone.utc),
        "2024-05-31 12:00:00",
        "2024-05-31T12:00:00",
    ],
    ids=["datetime", "zoned", "text", "iso"],
)
def test_as_times_takes_dates(value):
    assert as_times(pl.Series("time", [value]), "log.csv").to_list() == [datetime(2024, 5, 31, 12)]


def test_as_times_takes_days():
    assert as_times(pl.Series("time", [date(2024, 5, 31)]), "log.csv").to_list() == [datetime(2024, 5, 31)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, None], "row 2: the value is missing"),
        (["1", "soon", "2"], "row 2: 'soon' is no time; expected a finite number or a date"),
        (["soon"], "row 1: 'soon' is no time"),
        (["2024-05-31 12:00:00", "soon"], "row 2: 'soon' is no time"),
        ([0.0, float("nan")], "row 2: nan is no time"),
        ([float("inf"), 0.0], "row 1: inf is no time"),
        ([True], "row 1: True is no time"),
    ],
)
def test_as_times_names_the_row_that_is_no_time(values, message):
    with pytest.raises(ValueError, match=f"log.csv, column `when`, {message}"):
        as_times(pl.Series("when", values), "log.csv")


def test_as_datetimes_counts_seconds_since_1970():
    assert as_datetimes(pl.Series([0, 86_400]), "log.csv").to_list() == [datetime(1970, 1, 1), datetime(1970, 1, 2)]


@pytest.mark.parametrize("values", [[20240105, 20240229], ["20240105", "20240229"]])
def test_as_datetimes_refuses_dates_written_as_numbers(values):
    times = as_times(pl.Series("when", values), "log.csv")
    with pytest.raises(ValueError, match=r"log.csv: the time 20240105 is a date written as a number.*2024-05-31"):
        as_datetimes(times, "log.csv")


@pytest.mark.parametrize("values", [[20240105, 20240230], [20240105, 1_700_000_000], [20240105.5]])
def test_as_datetimes_takes_numbers_that_are_no_dates_for_seconds(values):
    times = as_datetimes(as_times(pl.Series("when", values), "log.csv"), "log.csv")
    assert times[0] == datetime(1970, 1, 1) + timedelta(seconds=values[0])


def test_as_datetimes_refuses_milliseconds():
    with pytest.raises(ValueError, match=r"the time 1700000000000 is beyond the year 5000.*Divide milliseconds"):
        as_datetimes(pl.Series([1_700_000_000_000]), "log.csv")


@pytest.mark.parametrize("dates", [["03/04/2024", "01/12/2024"], ["2024-01-01", "3-4-2024 10:00"], ["1/2/2024"]])
def test_as_times_refuses_dates_that_can_be_read_both_ways(dates):
    with pytest.raises(
        ValueError, match=r"a log, column `when`, row \d: .* begins with a day or with a month.*2024-05-31"
    ):
        as_times(pl.Series("when", dates), "a log")


def test_as_times_takes_days_first_where_one_tells():
    found = as_times(pl.Series("when", ["03/04/2024", "25/12/2024"]), "a log")
    assert [value.date().isoformat() for value in found] == ["2024-04-03", "2024-12-25"]
    found = as_times(pl.Series("when", ["03.04.2024", "02.03.2024"]), "a log")
    assert [value.date().isoformat() for value in found] == ["2024-04-03", "2024-03-02"]
