from __future__ import annotations

import polars as pl
import pytest

from ccd_lightning.data import BlockTable, build_stream

TABLE = pl.DataFrame(
    {"user": [7, 3, 7], "item": [1, 1, 2], "block": [0, 0, 1], "split": ["train", "test", "train"]},
    schema_overrides={"user": pl.Int32, "block": pl.Int8, "split": pl.Categorical},
)


def test_block_table_reads_the_same_from_every_format(tmp_path):
    TABLE.write_parquet(tmp_path / "t.parquet")
    TABLE.write_csv(tmp_path / "t.csv")
    TABLE.write_csv(tmp_path / "t.tsv", separator="\t")
    sources = [BlockTable(tmp_path / f"t.{suffix}") for suffix in ("parquet", "csv", "tsv")]
    prints = [build_stream(source.table(), source.describe()).fingerprints for source in sources]
    assert prints[0] == prints[1] == prints[2]


def test_block_table_names_its_file_in_errors(tmp_path):
    TABLE.drop("split").write_csv(tmp_path / "t.csv")
    source = BlockTable(str(tmp_path / "t.csv"))
    with pytest.raises(ValueError, match=r"t.csv has no column `split`"):
        build_stream(source.table(), source.describe())


def stream_of(path, users):
    rows = "".join(f"{user},1,0,train\n" for user in users)
    path.write_text(f"user,item,block,split\n{rows}")
    source = BlockTable(path)
    return build_stream(source.table(), source.describe())


@pytest.mark.parametrize("users", [["007", "7"], [str(2**63), "9" * 25], ["-0", "0"]], ids=["zeros", "long", "minus"])
def test_block_table_gives_ids_back_as_its_file_has_them(tmp_path, users):
    stream = stream_of(tmp_path / "t.csv", users)
    assert stream.blocks[0].num_users == 2
    assert stream.users.raw.to_list() == users
    assert stream.items.raw.to_list() == [1]


def test_block_table_has_integer_ids_where_its_file_has_nothing_else(tmp_path):
    assert stream_of(tmp_path / "t.csv", ["7", "-3", "10"]).users.raw.to_list() == [7, -3, 10]


@pytest.mark.parametrize("other", ["7", "007"])
def test_block_table_names_the_row_without_an_id(tmp_path, other):
    with pytest.raises(ValueError, match=r"t.csv, column `user`, row 2: the value is missing"):
        stream_of(tmp_path / "t.csv", [other, "", "5"])


def test_block_table_refuses_ids_with_a_point(tmp_path):
    with pytest.raises(ValueError, match=r"t.csv: column `user` holds Float64, but ids must be integers or strings"):
        stream_of(tmp_path / "t.csv", ["1.0", "2.0"])
