from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ccd_lightning.data import InteractionLog, build_stream, check_same_blocks

DAY = 86_400


@pytest.fixture
def events():
    generator = np.random.default_rng(0)
    count = 3000
    return pl.DataFrame(
        {
            "user": generator.integers(40, size=count),
            "item": generator.integers(60, size=count),
            "time": generator.integers(90 * DAY, size=count),
        }
    )


def write(table, path):
    if path.suffix == ".parquet":
        table.write_parquet(path)
    else:
        table.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return path


def firsts(events):
    """Distinct pairs by time in plain Python."""
    kept = {}
    for user, item, time in sorted(events.rows(), key=lambda row: row[2]):
        kept.setdefault((user, item), time)
    return kept


def test_log_blocks_are_chronological_and_have_the_papers_fractions(events, tmp_path):
    kept = firsts(events)
    table = InteractionLog(write(events, tmp_path / "log.csv"), core=0).table()
    times = [kept[pair] for pair in table.select("user", "item").rows()]
    assert times == sorted(times)
    assert table.select("user", "item").n_unique() == table.height

    position = {pair: index for index, pair in enumerate(kept)}
    base, rest = len(kept) // 2, len(kept) - len(kept) // 2
    for user, item, block, _ in table.rows():
        place = position[user, item]
        assert block == (0 if place < base else 1 + (place - base) * 5 // rest)


def test_log_splits_each_user_of_a_block_by_tenths(events, tmp_path):
    table = InteractionLog(write(events, tmp_path / "log.csv"), core=0, blocks=0).table()
    before = pl.DataFrame(list(firsts(events)), schema=["user", "item"], orient="row")["user"].value_counts()
    for user, count in before.rows():
        own = table.filter(pl.col("user") == user)["split"].value_counts()
        m = max(count // 10, 1)
        assert dict(own.rows()) == {"train": count - 2 * m, "valid": m, "test": m}


def test_log_reads_the_same_from_every_format(events, tmp_path):
    long = tmp_path / "log.dat"
    long.write_text("\n".join("::".join(map(str, row)) for row in events.rows()))
    expected = InteractionLog(write(events, tmp_path / "log.csv")).table()
    for source in (
        InteractionLog(write(events, tmp_path / "log.tsv")),
        InteractionLog(write(events, tmp_path / "log.parquet")),
        InteractionLog(long, separator="::", has_header=False, columns=["user", "item", "time"]),
    ):
        assert source.table().equals(expected)


def test_log_takes_columns_by_the_users_names(events, tmp_path):
    renamed = events.rename({"user": "who", "item": "what", "time": "when"})
    found = InteractionLog(write(renamed, tmp_path / "r.csv"), user="who", item="what", time="when").table()
    assert found.equals(InteractionLog(write(events, tmp_path / "log.csv")).table())


def test_log_keeps_the_earliest_of_repeated_pairs_and_ties_in_file_order(tmp_path):
    rows = [("late", 1, 5), ("b", 1, 2), ("a", 1, 2), ("late", 1, 9), ("a", 1, 7), ("first", 1, 0)]
    path = write(pl.DataFrame(rows, schema=["user", "item", "time"], orient="row"), tmp_path / "log.csv")
    source = InteractionLog(path, core=0, blocks=0)
    assert source._events().rows() == [("first", 1, 0), ("b", 1, 2), ("a", 1, 2), ("late", 1, 5)]


@pytest.mark.parametrize("separator", [",", "::"])
@pytest.mark.parametrize("column", ["user", "item"])
@pytest.mark.parametrize("ids", [["007", "7"], [str(2**63), "9" * 25]], ids=["zeros", "long"])
def test_log_gives_ids_back_as_its_file_has_them(tmp_path, ids, column, separator):
    path = tmp_path / "log.dat"
    other = {"user": "item", "item": "user"}[column]
    rows = [[column, other, "time"], [ids[0], "5", "1"], [ids[1], "5", "2"]]
    path.write_text("".join(f"{separator.join(row)}\n" for row in rows))
    source = InteractionLog(path, separator=separator, core=0, blocks=0)
    assert source._events()[column].to_list() == ids
    assert source._events()[other].to_list() == [5, 5]


def test_log_of_ids_with_leading_zeros_has_all_its_users(tmp_path):
    rows = "".join(f"{user},{item},{item}\n" for user in ("007", "7") for item in range(10, 15))
    (tmp_path / "log.csv").write_text(f"user,item,time\n{rows}")
    stream = build_stream(InteractionLog(tmp_path / "log.csv", core=0, blocks=0).table(), "log.csv")
    assert stream.blocks[0].num_users == 2
    assert set(stream.users.raw) == {"007", "7"}
    assert stream.items.raw.dtype == pl.Int64


def test_log_orders_times_with_leading_zeros_as_numbers(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,time\n1,1,10\n1,2,009\n1,3,8\n")
    assert InteractionLog(tmp_path / "log.csv", core=0, blocks=0)._events()["item"].to_list() == [3, 2, 1]


def test_log_shuffles_by_its_seed(events, tmp_path):
    path = write(events, tmp_path / "log.csv")
    assert InteractionLog(path, seed=1).table().equals(InteractionLog(path, seed=1).table())
    assert not InteractionLog(path, seed=1).table().equals(InteractionLog(path, seed=2).table())


def test_log_keeps_only_the_core(tmp_path):
    dense = [(user, item, 0) for user in range(5) for item in range(5)]
    rows = pl.DataFrame([*dense, (9, 0, 0), (0, 9, 0)], schema=["user", "item", "time"], orient="row")
    path = write(rows, tmp_path / "log.csv")
    table = InteractionLog(path, core=5, blocks=0).table()
    assert set(table["user"]) == set(table["item"]) == set(range(5))


@pytest.mark.parametrize("as_dates", [False, True])
def test_log_blocks_follow_the_calendar(events, tmp_path, as_dates):
    months = [0, 31, 59, 90]
    kept = firsts(events)
    if as_dates:
        events = events.with_columns(pl.from_epoch("time"))
    table = InteractionLog(write(events, tmp_path / "log.csv"), core=0, period="1mo").table()
    for user, item, block, _ in table.rows():
        assert months[block] * DAY <= kept[user, item] < months[block + 1] * DAY


def test_log_that_grows_by_a_period_keeps_its_old_blocks(events, tmp_path):
    old = events.filter(pl.col("time") < 59 * DAY)
    short = InteractionLog(write(old, tmp_path / "old.csv"), core=0, period="1mo")
    long = InteractionLog(write(events, tmp_path / "new.csv"), core=0, period="1mo")
    saved = build_stream(short.table(), "old").fingerprints
    stream = build_stream(long.table(), "new")
    check_same_blocks(saved, stream, "new")
    assert (len(saved), len(stream)) == (2, 3)


def test_log_learns_a_period_when_it_is_over(events, tmp_path):
    nights = [
        InteractionLog(
            write(events.filter(pl.col("time") < day * DAY), tmp_path / f"{day}.csv"),
            core=0,
            period="1mo",
            whole_periods=True,
        )
        for day in (45, 52, 75)
    ]
    whole = InteractionLog(write(events.filter(pl.col("time") < 59 * DAY), tmp_path / "two.csv"), core=0, period="1mo")
    expected = build_stream(whole.table(), "two months").fingerprints
    found = [build_stream(night.table(), "night").fingerprints for night in nights]
    assert found == [expected[:1], expected[:1], expected]


def test_log_waits_for_its_first_period(events, tmp_path):
    path = write(events.filter(pl.col("time") < 20 * DAY), tmp_path / "log.csv")
    with pytest.raises(ValueError, match=r"log.csv: all \d+ interactions lie in the period of 1mo from 1970-01-01"):
        InteractionLog(path, core=0, period="1mo", whole_periods=True).table()
    with pytest.raises(ValueError, match="`whole_periods` needs a `period`"):
        InteractionLog(path, whole_periods=True)


def test_log_names_an_empty_period(events, tmp_path):
    path = write(events.filter(~pl.col("time").is_between(31 * DAY, 59 * DAY)), tmp_path / "log.csv")
    with pytest.raises(ValueError, match=r"log.csv: the period of 1mo from 1970-02-01 00:00:00 has no interaction"):
        InteractionLog(path, period="1mo").table()


@pytest.mark.parametrize("column", ["user", "item", "time"])
def test_log_names_a_missing_column(events, tmp_path, column):
    path = write(events.drop(column), tmp_path / "log.csv")
    with pytest.raises(ValueError, match=f"log.csv has no column `{column}`; it has"):
        InteractionLog(path).table()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",1,5", "column `user`, row 2: the value is missing"),
        ("1,,5", "column `item`, row 2: the value is missing"),
        ("1,1,", "column `time`, row 2: the value is missing"),
        ("1,1,soon", "column `time`, row 2: 'soon' is no time"),
    ],
)
def test_log_names_the_row_that_is_wrong(tmp_path, row, message):
    (tmp_path / "log.csv").write_text(f"user,item,time\n1,1,9\n{row}\n1,2,1\n")
    with pytest.raises(ValueError, match=f"log.csv, {message}"):
        InteractionLog(tmp_path / "log.csv").table()


def test_log_refuses_a_core_that_leaves_nothing(events, tmp_path):
    path = write(events, tmp_path / "log.csv")
    with pytest.raises(ValueError, match=r"none of the \d+ interactions is left by the 100-core filter"):
        InteractionLog(path, core=100).table()


@pytest.mark.parametrize("arguments", [{"base_fraction": 0}, {"base_fraction": 1.5}, {"blocks": -1}, {"core": -1}])
def test_log_refuses_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match="expected a fraction above 0"):
        InteractionLog("log.csv", **arguments)
