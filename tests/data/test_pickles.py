from __future__ import annotations

import os
import pickle
import re
from collections import Counter, OrderedDict, defaultdict
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ccd_lightning.data import BlockTable, TaskPickles, build_stream
from ccd_lightning.data.safe_pickle import load_plain
from ccd_lightning.types import Split


def task(train=None, **others):
    return {"train_dict": train or {1: [5, 6], 2: []}, "valid_dict": {1: [7]}, "test_dict": {2: [5]}, **others}


def write(folder, *tasks, protocol=4):
    for index, content in enumerate(tasks):
        (folder / f"TASK_{index}.pickle").write_bytes(pickle.dumps(content, protocol=protocol))
    return TaskPickles(folder)


def test_pickles_give_the_rows_of_train_then_valid_then_test(tmp_path):
    rows = write(tmp_path, task(), task({np.int64(3): [np.int32(5)]})).table()
    assert rows.select("user", "item", "block", "split").rows() == [
        (1, 5, 0, "train"),
        (1, 6, 0, "train"),
        (1, 7, 0, "valid"),
        (2, 5, 0, "test"),
        (3, 5, 1, "train"),
        (1, 7, 1, "valid"),
        (2, 5, 1, "test"),
    ]


def test_pickles_equal_the_block_table_on_yelp(shared_data):
    table, pickles = (
        build_stream(source.table(), source.describe())
        for source in (BlockTable(shared_data / "yelp_blocks.parquet"), TaskPickles(shared_data / "authors_yelp"))
    )
    assert table.fingerprints == pickles.fingerprints
    assert table.users.raw.equals(pickles.users.raw)
    assert table.items.raw.equals(pickles.items.raw)
    for expected, found in zip(table.blocks, pickles.blocks, strict=True):
        assert (expected.num_users, expected.num_items) == (found.num_users, found.num_items)
        assert expected.repeats_dropped == found.repeats_dropped
        for split in Split:
            assert torch.equal(expected.split(split).users, found.split(split).users)
            assert torch.equal(expected.split(split).items, found.split(split).items)


@pytest.mark.parametrize("dtype", ["i1", "<i2", ">i4", "<i8", ">u8", "u1"])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_load_plain_reads_numpy_integers_of_any_kind(tmp_path, dtype, protocol):
    values = [np.array(value).astype(dtype)[()] for value in (0, 7, 100)]
    path = tmp_path / "x.pickle"
    path.write_bytes(pickle.dumps(defaultdict(list, {values[1]: values}), protocol=protocol))
    assert load_plain(path) == {7: [0, 7, 100]}


@pytest.mark.parametrize("protocol", range(6))
def test_load_plain_reads_containers_of_every_protocol(tmp_path, protocol):
    path = tmp_path / "x.pickle"
    path.write_bytes(pickle.dumps(defaultdict(list, {1: [2], "a": (3,)}), protocol=protocol))
    assert load_plain(path) == {1: [2], "a": (3,)}


def test_load_plain_reads_the_old_and_the_new_place_of_numpy_scalars(tmp_path):
    content = pickle.dumps(np.int64(-3), protocol=3)
    path = tmp_path / "x.pickle"
    for place in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        path.write_bytes(re.sub(rb"numpy\._?core\.multiarray", place, content))
        assert load_plain(path) == -3


class Payload:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def payloads(marker):
    return {
        rf"{os.system.__module__}\.system": Payload(os.system, f"touch {marker}"),
        r"builtin(s|__)\.eval": Payload(eval, f"open({str(marker)!r}, 'w')"),
        r"builtin(s|__)\.getattr": Payload(getattr, [], "append"),
        r"functools\.partial": partial(print),
        r"collections\.Counter": Counter("a"),
        r"collections\.OrderedDict": OrderedDict(a=1),
        r"builtin(s|__)\.set": Payload(set, [1]),
        r"builtin(s|__)\.dict": defaultdict(dict),
        r"torch": torch.zeros(1),
        r"reconstruct|_frombuffer": np.zeros(2),
    }


@pytest.mark.parametrize("name", list(payloads("")))
@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_refuse_foreign_classes_by_name_and_run_nothing(tmp_path, name, protocol):
    marker = tmp_path / "marker"
    source = write(tmp_path, task(), task(extra=payloads(marker)[name]), protocol=protocol)
    with pytest.raises(ValueError, match=rf"TASK_1.pickle cannot be read as a task: it asks for `.*({name}).*refused"):
        source.table()
    assert not marker.exists()


def test_the_planted_payload_would_have_run(tmp_path):
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(payloads(marker)[r"builtin(s|__)\.eval"]))
    assert marker.exists()


@pytest.mark.parametrize("value", [np.float64(1.5), np.bool_(True)])
def test_pickles_refuse_numpy_scalars_that_are_no_integers(tmp_path, value):
    with pytest.raises(ValueError, match=r"it holds numpy.dtype\('..'\), where only integers are admitted"):
        write(tmp_path, task({1: [value]})).table()


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"ccollections\ndefaultdict\n(I1\ntR.", "it holds a defaultdict of 1"),
        (b"cnumpy.core.multiarray\nscalar\n(I1\nI2\ntR.", "a numpy scalar that is no integer"),
        (b"ccollections\ndefaultdict\n(NX\x01\x00\x00\x00a\x03\x00\x00\x00abct\x86b.", "cannot be read as a task"),
        (b"ccollections\ndefaultdict\n(N(dX\x04\x00\x00\x00keysI1\nstb.", "tries to change _ListDict.keys"),
    ],
    ids=["factory", "scalar", "garbage", "class attribute"],
)
def test_pickles_refuse_misuse_of_what_is_admitted(tmp_path, stream, message):
    (tmp_path / "TASK_0.pickle").write_bytes(stream)
    with pytest.raises(ValueError, match=message):
        TaskPickles(tmp_path).table()


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_pickles_with_changed_bytes_never_raise_anything_else(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("tasks", numbered=True)
    protocol = data.draw(st.sampled_from([0, 3, 4]))
    content = bytearray(pickle.dumps(task({np.int64(1): [np.int64(2)]}), protocol=protocol))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "TASK_0.pickle").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        build_stream(TaskPickles(folder).table(), "tasks")
    except ValueError as error:
        assert str(error)


def test_pickles_refuse_a_truncated_file(tmp_path):
    source = write(tmp_path, task())
    path = tmp_path / "TASK_0.pickle"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"TASK_0.pickle cannot be read as a task: .*Expected a pickle of dicts"):
        source.table()


@pytest.mark.parametrize("content", [b"", b"user,item\n1,2\n", b"\x00" * 20], ids=["empty", "text", "zeros"])
def test_pickles_refuse_garbage(tmp_path, content):
    (tmp_path / "TASK_0.pickle").write_bytes(content)
    with pytest.raises(ValueError, match=r"TASK_0.pickle cannot be read as a task"):
        TaskPickles(tmp_path).table()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": {}}, "TASK_0.pickle holds train, but the dicts train_dict, valid_dict, test_dict are needed"),
        ([1], "TASK_0.pickle holds list, but the dicts"),
        ({**task(), "valid_dict": [1]}, "but the dicts train_dict, valid_dict, test_dict are needed"),
        (task({1: 5}), "TASK_0.pickle, train_dict: user 1 has int, but a list of items was expected"),
        (task({1: ["a", 2]}), "item ids are of type int, str, but either all are integers or all are strings"),
        (task({(1, 2): [3]}), "user ids are of type int, tuple"),
        (task({1: [2.5]}), "item ids are of type float, int"),
        ({"train_dict": {1: []}, "valid_dict": {}, "test_dict": {}}, "TASK_0.pickle holds no interaction"),
        (
            task(num_base_block_users=2),
            "test_dict: user 2 cannot be known to the model, since `num_base_block_users` is 2",
        ),
        (
            task(num_base_block_items=np.int64(7)),
            "valid_dict: item 7 cannot be known to the model, since `num_base_block_items` is 7",
        ),
    ],
)
def test_pickles_name_what_is_wrong(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path, content).table()


def test_pickles_refuse_a_change_of_type_between_tasks(tmp_path):
    other = {"train_dict": {"ann": [1]}, "valid_dict": {}, "test_dict": {}}
    with pytest.raises(ValueError, match=r"TASK_1.pickle holds ids of type .*String.*, but TASK_0.pickle"):
        write(tmp_path, task(), other).table()


def test_pickles_name_a_missing_task(tmp_path):
    source = write(tmp_path, task(), task(), task())
    (tmp_path / "TASK_1.pickle").unlink()
    with pytest.raises(ValueError, match=r"TASK_1.pickle is missing, but TASK_2.pickle is there"):
        source.table()


def test_pickles_name_a_folder_without_tasks(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match=r"there is no TASK_0.pickle in this folder"):
            TaskPickles(folder).table()
