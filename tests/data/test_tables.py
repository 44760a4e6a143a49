from __future__ import annotations

import polars as pl
import pytest

from ccd_lightning.data.tables import read_table

TABLE = pl.DataFrame({"user": ["ann", "bob"], "item": [10, 2**40], "time": [0.5, 2.0]})


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("log.parquet", TABLE.write_parquet),
        ("log.csv", TABLE.write_csv),
        ("log.tsv", lambda path: TABLE.write_csv(path, separator="\t")),
    ],
)
def test_read_table_goes_by_the_suffix(tmp_path, name, write):
    write(tmp_path / name)
    assert read_table(tmp_path / name).equals(TABLE)


def test_read_table_takes_separators_of_any_length(tmp_path):
    path = tmp_path / "ratings.dat"
    path.write_text("1::1193::5::978300760\n1::661::3::978302109\n2::a,b::4::978298413\n")
    table = read_table(path, separator="::", has_header=False, columns=["user", "item"])
    assert table.columns == ["user", "item", "column_3", "column_4"]
    assert table["user"].to_list() == [1, 1, 2]
    assert table["item"].to_list() == ["1193", "661", "a,b"]
    assert table["column_4"].to_list() == [978300760, 978302109, 978298413]


def test_read_table_reads_the_header_before_long_separators(tmp_path):
    path = tmp_path / "ratings.dat"
    path.write_text("user::item\n1::2\n\n3::4\n")
    assert read_table(path, separator="::").to_dict(as_series=False) == {"user": [1, 3], "item": [2, 4]}


def test_read_table_takes_a_separator_of_its_own(tmp_path):
    path = tmp_path / "u.data"
    path.write_text("196;242\n186;302\n")
    table = read_table(path, separator=";", has_header=False, columns=["user", "item"])
    assert table.to_dict(as_series=False) == {"user": [196, 186], "item": [242, 302]}


def test_read_table_keeps_ids_that_turn_into_text_late(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user\n" + "1\n" * 5000 + "x\n")
    assert read_table(path)["user"].dtype == pl.String


def read_column(folder, values, separator):
    """The first of two columns of a text file, whose second holds whole numbers."""
    path = folder / "log.dat"
    rows = "".join(f"{value}{separator}1\n" for value in values)
    path.write_text(f"user{separator}x\n{rows}")
    table = read_table(path, separator=separator)
    assert table["x"].to_list() == [1] * len(values)
    return table["user"]


@pytest.mark.parametrize("separator", [",", "\t", "::"])
@pytest.mark.parametrize(
    "values",
    [
        ["007", "7"],
        ["7", "08"],
        ["00", "0"],
        ["-0", "0"],
        ["-07", "-7"],
        ["+7", "7"],
        [" 7", "7"],
        ["7 ", "7"],
        ["9223372036854775808", "1"],
        ["-9223372036854775809", "1"],
        ["123456789012345678901234567890", "1"],
        ["9" * 60, "1"],
    ],
    ids=repr,
)
def test_read_table_keeps_text_that_an_integer_would_not_give_back(tmp_path, values, separator):
    column = read_column(tmp_path, values, separator)
    assert column.dtype == pl.String
    assert column.to_list() == values


@pytest.mark.parametrize("separator", [",", "\t", "::"])
@pytest.mark.parametrize(
    "values", [["7", "10", "0"], ["-7", "7"], [str(2**63 - 1), str(-(2**63))]], ids=["plain", "negative", "extreme"]
)
def test_read_table_narrows_text_that_is_written_as_integers_are(tmp_path, values, separator):
    column = read_column(tmp_path, values, separator)
    assert column.dtype == pl.Int64
    assert column.to_list() == [int(value) for value in values]


@pytest.mark.parametrize(
    ("values", "expected"),
    [(["7", "", "3"], [7, None, 3]), (["007", "", "3"], ["007", None, "3"])],
    ids=["plain", "zeros"],
)
def test_read_table_leaves_gaps_null_beside_integers_and_text(tmp_path, values, expected):
    assert read_column(tmp_path, values, ",").to_list() == expected


@pytest.mark.parametrize(("values", "expected"), [(['"007"', '"7"'], ["007", "7"]), (['"10"', '"7"'], [10, 7])])
def test_read_table_reads_quoted_values_like_bare_ones(tmp_path, values, expected):
    assert read_column(tmp_path, values, ",").to_list() == expected


@pytest.mark.parametrize(("values", "dtype"), [(["1.0", "2"], pl.Float64), (["true", "false"], pl.Boolean)])
def test_read_table_leaves_types_that_no_ids_have_to_be_refused(tmp_path, values, dtype):
    assert read_column(tmp_path, values, ",").dtype == dtype


def test_read_table_narrows_each_column_for_itself(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,time\n007,5,0010\n7,6,9\n")
    expected = {"user": ["007", "7"], "item": [5, 6], "time": ["0010", "9"]}
    assert read_table(tmp_path / "log.csv").to_dict(as_series=False) == expected


def test_read_table_names_an_absent_file(tmp_path):
    with pytest.raises(ValueError, match=r"absent.csv: there is no such file. Check the source's `path`"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(ValueError, match=r"is a folder, but a file is needed. Name one file in `--users`"):
        read_table(tmp_path, option="`--users`")


def test_read_table_names_an_unknown_suffix(tmp_path):
    (tmp_path / "log.xlsx").write_text("user\n1\n")
    with pytest.raises(ValueError, match=r"the suffix '.xlsx' is not known; expected .parquet, .csv or .tsv"):
        read_table(tmp_path / "log.xlsx")


def test_read_table_refuses_text_named_parquet(tmp_path):
    TABLE.write_csv(tmp_path / "log.parquet")
    with pytest.raises(
        ValueError, match=r"log.parquet cannot be read as Parquet: although .* its content is not Parquet"
    ):
        read_table(tmp_path / "log.parquet")


@pytest.mark.parametrize("size", [4, 40, -1])
def test_read_table_refuses_truncated_parquet(tmp_path, size):
    TABLE.write_parquet(tmp_path / "whole.parquet")
    (tmp_path / "log.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:size])
    with pytest.raises(ValueError, match=r"log.parquet cannot be read as Parquet: .*(truncated|smaller than)"):
        read_table(tmp_path / "log.parquet")


def test_read_table_refuses_parquet_with_a_broken_inside(tmp_path):
    (tmp_path / "log.parquet").write_bytes(b"PAR1" + b"garbage" * 9 + b"PAR1")
    with pytest.raises(ValueError, match=r"log.parquet cannot be read as Parquet"):
        read_table(tmp_path / "log.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"P"], ids=["empty", "short", "shorter"])
def test_read_table_refuses_tiny_parquet(tmp_path, content):
    (tmp_path / "log.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"log\.parquet"):
        read_table(tmp_path / "log.parquet")


@pytest.mark.parametrize(("content", "found"), [(b"\x00\x01\x02", "binary"), (b"PAR1 and so on", "Parquet")])
def test_read_table_refuses_binary_named_csv(tmp_path, content, found):
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"log.csv should be a text table, but its content is {found}"):
        read_table(tmp_path / "log.csv")


@pytest.mark.parametrize(
    "content", [b"", b"user,item\n1,2,3\n", b"user,item\n\xff\xfe,2\n"], ids=["empty", "ragged", "latin"]
)
def test_read_table_refuses_text_that_is_no_table(tmp_path, content):
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"log.csv (cannot be read as a text table|is empty)"):
        read_table(tmp_path / "log.csv")


def test_read_table_refuses_more_names_than_columns(tmp_path):
    (tmp_path / "log.csv").write_text("1,2\n")
    with pytest.raises(ValueError, match=r"log.csv has 2 columns, but `columns` names 3"):
        read_table(tmp_path / "log.csv", has_header=False, columns=["user", "item", "time"])
