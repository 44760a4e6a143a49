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
