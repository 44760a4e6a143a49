from __future__ import annotations

from collections import defaultdict

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccd_lightning.data import BlockTable, build_stream, check_same_blocks
from ccd_lightning.types import Split

COLUMNS = ["user", "item", "block", "split"]
STORED = [
    (119869, 15202, 15206),
    (33032, 6893, 6895),
    (20189, 4174, 4180),
    (20056, 4011, 4014),
    (23567, 4691, 4682),
    (21291, 3929, 3933),
]


def as_table(rows):
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


@st.composite
def streams(draw):
    rows = []
    for block in range(draw(st.integers(1, 4))):
        pairs = st.tuples(st.integers(0, 6), st.sampled_from("abcd"), st.sampled_from([s.value for s in Split]))
        rows += [(user, item, block, split) for user, item, split in draw(st.lists(pairs, max_size=12))]
        rows.append((0, "a", block, "train"))
    return rows


@given(streams())
@settings(deadline=None)
def test_build_stream_equals_a_loop_over_rows(rows):
    users, items, kept = {}, {}, defaultdict(list)
    known = {}
    for user, item, block, split in rows:
        pair = users.setdefault(user, len(users)), items.setdefault(item, len(items))
        if pair not in kept[block, split]:
            kept[block, split].append(pair)
        known[block] = len(users), len(items)

    stream = build_stream(as_table(rows), "rows")

    assert stream.users.raw.to_list() == list(users)
    assert stream.items.raw.to_list() == list(items)
    for block in stream.blocks:
        assert (block.num_users, block.num_items) == known[block.index]
        assert (block.num_old_users, block.num_old_items) == known.get(block.index - 1, (0, 0))
        for split in Split:
            found = list(zip(*(column.tolist() for column in block.split(split)), strict=True))
            assert found == kept[block.index, split.value]
        size = sum(len(kept[block.index, split.value]) for split in Split)
        assert block.repeats_dropped == sum(row[2] == block.index for row in rows) - size


def test_build_stream_keeps_repeats_across_splits_and_blocks():
    stream = build_stream(as_table([(1, 1, 0, "train"), (1, 1, 0, "test"), (1, 1, 1, "train")]), "rows")
    assert [block.repeats_dropped for block in stream.blocks] == [0, 0]
    assert stream.repeats_dropped == 0
    assert [stream.blocks[0].test.size, stream.blocks[1].train.size] == [1, 1]


def test_build_stream_counts_held_out_users_without_any_train_interaction():
    rows = [
        (1, 1, 0, "train"),
        (2, 1, 0, "valid"),
        (2, 1, 0, "test"),
        (3, 1, 0, "test"),
        (2, 1, 1, "train"),
        (2, 2, 1, "test"),
        (3, 1, 1, "test"),
    ]
    assert build_stream(as_table(rows), "rows").cold_users == [2, 1]


def test_build_stream_of_a_longer_table_starts_with_the_same_blocks():
    rows = [("b", 1, 0, "train"), ("a", 2, 0, "test"), ("c", 1, 1, "train")]
    short, long = build_stream(as_table(rows), "rows"), build_stream(as_table([*rows, ("d", 3, 2, "train")]), "rows")
    check_same_blocks(short.fingerprints, long, "rows")
    assert long.users.raw.to_list()[: len(short.users)] == short.users.raw.to_list()
    assert len(long) == 3


def test_fingerprint_does_not_depend_on_types_that_hold_the_same_values():
    table = as_table([(1, "x", 0, "train"), (2, "y", 0, "test")])
    other = table.with_columns(
        pl.col("user").cast(pl.UInt8), pl.col("item").cast(pl.Categorical), pl.col("split").cast(pl.Categorical)
    )
    assert build_stream(table, "a").fingerprints == build_stream(other, "b").fingerprints


@pytest.mark.parametrize(
    "changed",
    [
        [("a", "b", 0, "train"), ("ac", "d", 0, "valid")],
        [("a", "b", 0, "train"), ("ac", "d2", 0, "test")],
        [("aa", "b", 0, "train"), ("c", "d", 0, "test")],
        [("ac", "d", 0, "test"), ("a", "b", 0, "train")],
        [("a", "b", 0, "train"), ("ac", "d", 0, "test"), ("ac", "d", 0, "test")],
    ],
    ids=["split", "item", "border", "order", "repeat"],
)
def test_fingerprint_depends_on_every_value_and_on_their_order(changed):
    table = as_table([("a", "b", 0, "train"), ("ac", "d", 0, "test")])
    assert build_stream(table, "a").fingerprints != build_stream(as_table(changed), "b").fingerprints


@pytest.mark.parametrize(
    ("user", "is_same"), [("1", True), ("01", False), ("+1", False), ("1.0", False), ("9" * 25, False)]
)
def test_numbers_are_the_same_where_a_later_id_has_made_them_text(user, is_same):
    numbers, words = as_table([(1, 2, 0, "train")]), as_table([(user, "2", 0, "train"), ("007", "x", 1, "train")])
    saved, present = build_stream(numbers, "a").fingerprints, build_stream(words, "b").fingerprints
    assert (saved[0] == present[0]) == is_same


def test_check_same_blocks_names_the_changed_block():
    rows = [(1, 1, 0, "train"), (2, 1, 1, "train"), (3, 1, 2, "train")]
    saved = build_stream(as_table(rows), "rows").fingerprints
    changed = build_stream(as_table([*rows[:1], (9, 1, 1, "train"), rows[2]]), "rows")
    with pytest.raises(ValueError, match=r"t.csv: block 1 is not the one the run was trained on"):
        check_same_blocks(saved, changed, "t.csv")


def test_check_same_blocks_names_the_vanished_block():
    rows = [(1, 1, 0, "train"), (2, 1, 1, "train")]
    saved = build_stream(as_table(rows), "rows").fingerprints
    with pytest.raises(ValueError, match=r"t.csv holds 1 blocks, but the run was trained on 2: block 1 is gone"):
        check_same_blocks(saved, build_stream(as_table(rows[:1]), "rows"), "t.csv")


def test_yelp_counts_are_those_published_with_the_data(shared_data):
    path = shared_data / "yelp_blocks.parquet"
    stored = pl.read_parquet(path).with_columns(pl.col("split").cast(pl.String)).group_by("block", "split").len()
    counts = {(block, split): count for block, split, count in stored.rows()}
    assert [tuple(counts[block, split.value] for split in Split) for block in range(6)] == STORED

    stream = build_stream(BlockTable(path).table(), str(path))
    assert [block.repeats_dropped for block in stream.blocks] == [2524, 344, 248, 184, 247, 223]
    assert [block.num_users for block in stream.blocks] == [11534, 12809, 13473, 14111, 14672, 14950]
    assert [block.num_items for block in stream.blocks] == [10782, 11300, 11581, 11933, 12187, 12259]
    sizes = [sum(block.split(split).size for split in Split) + block.repeats_dropped for block in stream.blocks]
    assert sizes == [sum(row) for row in STORED]


def test_gowalla_has_no_repeats(shared_data):
    path = shared_data / "gowalla_blocks.parquet"
    stream = build_stream(BlockTable(path).table(), str(path))
    assert stream.repeats_dropped == 0
    assert (len(stream.users), len(stream.items), len(stream)) == (29858, 40988, 6)
