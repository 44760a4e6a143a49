from __future__ import annotations

import polars as pl
import pytest

from ccd_lightning.data.validation import checked_table

GOOD = {
    "user": [1, 2, 1, 3],
    "item": ["a", "b", "c", "a"],
    "block": [0, 0, 1, 1],
    "split": ["train", "valid", "train", "test"],
}


def table(**changes):
    return pl.DataFrame({**GOOD, **changes}, strict=False)


def test_checked_table_brings_columns_to_their_final_types():
    checked = checked_table(table(user=pl.Series([1, 2, 1, 3], dtype=pl.UInt8), extra=[0, 0, 0, 0]), "t.csv")
    assert checked.dtypes[:3] == [pl.Int64, pl.String, pl.Int64]
    assert checked.columns == ["user", "item", "block", "split"]
    assert checked.to_dict(as_series=False) == GOOD


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user": [1, None, 1, 3]}, "column `user`, row 2: the value is missing"),
        ({"item": ["a", "b", "c", None]}, "column `item`, row 4: the value is missing"),
        ({"user": ["a", "b", "", "c"]}, r"column `user`, row 3: the value is missing \(blank\)"),
        ({"item": ["a", " ", None, "c"]}, r"column `item`, row 2: the value is missing \(blank\)"),
        ({"block": [0, None, 1, 1]}, "column `block`, row 2: the value is missing"),
        ({"split": [None, "valid", "train", "test"]}, "column `split`, row 1: the value is missing"),
        ({"split": ["train", "valid", "dev", "test"]}, "column `split`, row 3: 'dev' is no split; expected one of"),
        ({"block": ["0", "0", "x", "1"]}, "column `block`, row 3: 'x' is no whole number"),
        ({"block": [0, 0, 0.5, 1]}, "column `block`, row 3: 0.5 is no whole number"),
        ({"block": [0, float("nan"), 1, 1]}, "column `block`, row 2: nan is no whole number"),
        ({"block": [0, 1, 0, 1]}, "column `block`, row 3: block 0 comes after block 1, .* must not go backwards"),
        ({"block": [0, 0, 2, 2]}, "column `block`, row 3: block 2 follows block 0, so block 1 is empty or skipped"),
        ({"block": [1, 1, 2, 2]}, "column `block`, row 1: the first block is 1"),
        ({"block": [-1, 0, 1, 1]}, "the first block is -1"),
        ({"split": ["train", "valid", "valid", "test"]}, "block 1 is empty of train rows"),
        ({"user": [1.0, 2.0, 1.0, 3.0]}, "column `user` holds Float64, but ids must be"),
    ],
)
def test_checked_table_names_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=f"^t.csv.*{message}"):
        checked_table(table(**changes), "t.csv")


@pytest.mark.parametrize("column", list(GOOD))
def test_checked_table_names_a_missing_column(column):
    with pytest.raises(ValueError, match=f"t.csv has no column `{column}`; it has .*Rename"):
        checked_table(table().drop(column), "t.csv")


def test_checked_table_refuses_no_rows():
    with pytest.raises(ValueError, match=r"t.csv holds no row"):
        checked_table(table().clear(), "t.csv")
