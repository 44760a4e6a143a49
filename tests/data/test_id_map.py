from __future__ import annotations

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ccd_lightning.data import IdMap
from ccd_lightning.data.id_map import as_raw_ids

integer_ids = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9), max_size=30)
string_ids = st.lists(st.text(max_size=3), max_size=30)
parts_of_one_type = st.lists(integer_ids, max_size=5).map(lambda parts: (parts, pl.Int64)) | st.lists(
    string_ids, max_size=5
).map(lambda parts: (parts, pl.String))


def first_appearance(ids):
    return {raw: position for position, raw in enumerate(dict.fromkeys(ids))}


@given(parts_of_one_type)
def test_id_map_extension_never_renumbers(drawn):
    parts, dtype = drawn
    known, so_far = IdMap(), []
    for part in parts:
        before = known.raw.to_list()
        known = known.extend(pl.Series("user", part, dtype=dtype))
        so_far += part
        assert known.raw.to_list()[: len(before)] == before
        expected = first_appearance(so_far)
        assert known.encode(pl.Series("user", so_far, dtype=dtype)).tolist() == [expected[raw] for raw in so_far]
        assert len(known) == len(expected)


@given(string_ids)
def test_id_map_decode_inverts_encode(ids):
    raw = pl.Series("item", ids, dtype=pl.String)
    known = IdMap().extend(raw)
    assert known.decode(known.encode(raw)).to_list() == ids


@pytest.mark.parametrize("ids", [pl.Series([5, -3, 2**62]), pl.Series(["ä", "", "b"]), pl.Series([], dtype=pl.Int64)])
def test_id_map_survives_its_file(tmp_path, ids):
    known = IdMap().extend(ids)
    known.save(tmp_path / "users.parquet")
    loaded = IdMap.load(tmp_path / "users.parquet")
    assert loaded.raw.dtype == ids.dtype
    assert loaded.raw.to_list() == ids.to_list()
    assert pl.read_parquet(tmp_path / "users.parquet").columns == ["raw", "id"]


def test_id_map_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "users.parquet"
    IdMap(pl.Series([1, 2])).save(path)

    def fail(self, target):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", fail)
    with pytest.raises(OSError, match="disk full"):
        IdMap(pl.Series([1, 2, 3])).save(path)
    monkeypatch.undo()
    assert len(IdMap.load(path)) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_id_map_is_empty_until_extended():
    assert len(IdMap()) == 0
    assert torch.equal(IdMap().encode(pl.Series("user", [], dtype=pl.Int64)), torch.empty(0, dtype=torch.long))


@pytest.mark.parametrize(("first", "second"), [([1], ["1"]), (["1"], [1])])
def test_id_map_refuses_a_change_of_type(first, second):
    known = IdMap().extend(pl.Series("user", first))
    found, expected = ("strings", "integers") if isinstance(second[0], str) else ("integers", "strings")
    with pytest.raises(ValueError, match=f"log.csv: column `user` holds {found}, but the ids .* are {expected}"):
        known.extend(pl.Series("user", second), "log.csv")


def test_id_map_refuses_an_unknown_id():
    known = IdMap().extend(pl.Series("user", ["ann"]))
    with pytest.raises(ValueError, match="user 'bob' is unknown"):
        known.encode(pl.Series("user", ["ann", "bob"]))


@pytest.mark.parametrize(
    "table", [{"raw": [1, 2], "id": [1, 0]}, {"raw": [1, 1], "id": [0, 1]}], ids=["renumbered", "repeated"]
)
def test_id_map_refuses_a_changed_file(tmp_path, table):
    pl.DataFrame(table).write_parquet(tmp_path / "users.parquet")
    with pytest.raises(ValueError, match="changed after it was saved"):
        IdMap.load(tmp_path / "users.parquet")


def test_id_map_refuses_a_file_that_is_none(tmp_path):
    pl.DataFrame({"user": [1]}).write_parquet(tmp_path / "other.parquet")
    for name in ("other.parquet", "absent.parquet"):
        with pytest.raises(ValueError, match="cannot be read as an id map"):
            IdMap.load(tmp_path / name)


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt16, pl.UInt64, pl.Int64])
def test_raw_ids_do_not_depend_on_integer_width(dtype):
    ids = as_raw_ids(pl.Series("user", [3, 1], dtype=dtype), "log.csv")
    assert ids.dtype == pl.Int64
    assert ids.to_list() == [3, 1]


def test_raw_ids_do_not_depend_on_how_strings_are_stored():
    assert as_raw_ids(pl.Series("user", ["b", "a"], dtype=pl.Categorical), "log.csv").to_list() == ["b", "a"]


def test_raw_ids_refuse_other_types():
    with pytest.raises(ValueError, match=r"log.csv: column `user` holds Float64, but ids must be integers or strings"):
        as_raw_ids(pl.Series("user", [1.5]), "log.csv")


def test_raw_ids_refuse_integers_beyond_64_bits():
    with pytest.raises(ValueError, match=r"`user` holds 18446744073709551615, but integer ids must be below 2\*\*63"):
        as_raw_ids(pl.Series("user", [2**64 - 1], dtype=pl.UInt64), "log.csv")
