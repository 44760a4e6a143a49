"""Everything that a user can get wrong: one message, exit code 2, nothing half-written, what was saved stays whole."""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from ccd_lightning.backbones import BPRMF, EmbeddingBackbone, LightGCN, MultVAE
from ccd_lightning.callbacks import (
    DistillationCallback,
    GenerationSettings,
    GraphSettings,
    Recommendations,
    ReplaySettings,
    StreamCheckpoint,
    TeacherReplaySettings,
)
from ccd_lightning.checkpoint import VERSION, checkpoints_in, read_checkpoint, write_checkpoint
from ccd_lightning.cli import main
from ccd_lightning.data import ContinualDataModule, IdMap, InteractionLog, SimulatedStream
from ccd_lightning.modules import CollaborativeDistillation, Student, Teacher
from ccd_lightning.plan import StreamPlan
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import StageSettings
from tests.reliability.refusals import SHORT, TINY, files_in, refusal

NAN, INF = float("nan"), float("inf")


def system(**changes: Any) -> CollaborativeDistillation:
    return CollaborativeDistillation(Student(BPRMF(4)), [Teacher(LightGCN(4))], **changes)


OUT_OF_RANGE: list[tuple[Callable[..., object], dict[str, list[Any]]]] = [
    (
        StageSettings,
        {
            "learning_rate": [0, 0.0, -1.0, NAN, INF, "fast", None],
            "weight_decay": [-1e-9, NAN, INF],
            "eps": [0.0, -1e-8, NAN, INF],
            "batch_size": [0, -5, 2.5, NAN, True],
            "negatives": [0, -1, 1.5],
            "max_epochs": [0, -1, 0.5],
            "evaluate_every": [-1, 0.5],
            "patience": [0, -1],
        },
    ),
    (StreamPlan, {"teacher_every": [0, -1]}),
    (
        ReplaySettings,
        {
            "top_n": [0, -1, 2, [], [100, 2], [0], "many"],
            "stability": [-1, 101, [], [3, -1], [3, 500], 0.5],
            "plasticity": [-1, 101],
            "eps": [-1e-9, NAN, INF],
            "scale": [-0.5, NAN],
            "decay": [0, -1.0, NAN],
        },
    ),
    (
        TeacherReplaySettings,
        {"top_n": [2, [100, 2]], "stability": [-1, 101], "student": [-1, 101, [], [3, 500], 0.5], "decay": [0]},
    ),
    (
        GenerationSettings,
        {
            "list_length": [0, -1, 1.5],
            "sample": [0, -1, NAN],
            "user_weight": [-0.1, NAN, INF],
            "item_weight": [-0.1, NAN, INF],
        },
    ),
    (
        GraphSettings,
        {
            "weight": [-1, NAN],
            "cluster_weight": [-1, INF],
            "output_weight": [-1, NAN],
            "temperature": [0, -5.0, NAN],
            "sample": [0, -1],
        },
    ),
    (
        DistillationCallback,
        {
            "stability_momentum": [-0.1, 1.1, NAN, [], [0.9, 1.5], [0.9, NAN], "0.9"],
            "plasticity_momentum": [-0.1, 2, [-1.0]],
            "exclusion": [-1, 1.5, NAN],
            "observed": ["blok", None],
        },
    ),
    (system, {"fusion_power": [0, -0.05, NAN, INF], "ks": [[], [0], [-5], [20, 0], [2.5]]}),
    (EmbeddingBackbone, {"dim": [0, -1]}),
    (LightGCN, {"dim": [0], "num_layers": [-1], "graph": ["blok", "", None]}),
    (
        MultVAE,
        {
            "dim": [0, -1],
            "max_anneal": [-1, NAN],
            "anneal_steps": [0, -1],
            "history": ["blok"],
            "soft_value": [0, -1.0, NAN],
        },
    ),
    (lambda **changes: Student(BPRMF(4), **changes), {"new_rows": ["zero"], "new_rows_topk": [0, -1]}),
    (lambda **changes: Teacher(BPRMF(4), **changes), {"clusters": [-1, 1.5], "new_rows": ["zero"]}),
    (Recommendations, {"k": [0, -1]}),
    (StreamCheckpoint, {"keep_last": [0, -1], "every_seconds": [-1, NAN]}),
    (
        lambda **changes: ContinualDataModule(SimulatedStream(), **changes),
        {"max_blocks": [0, -1], "evaluation_batch": [0]},
    ),
    (
        SimulatedStream,
        {
            **{name: [0, -1] for name in ("users", "items", "interactions", "blocks", "groups", "dimensions")},
            **{"candidates": [0], "drift": [-0.1, 1.1, NAN], "base_fraction": [0, NAN], "block_fraction": [2]},
            **{"popularity": [NAN, -1], "sharpness": [INF], "seed": [-1]},
        },
    ),
    (
        lambda **changes: InteractionLog("log.csv", **changes),
        {"core": [-1], "base_fraction": [0, 1.5, NAN], "blocks": [-1], "seed": [-1], "separator": [""]},
    ),
    (lambda **changes: StreamTrainer(accelerator="cpu", logger=False, **changes), {"max_epochs": [0, -1]}),
]


@pytest.mark.parametrize(
    ("build", "name", "value"),
    [(build, name, value) for build, cases in OUT_OF_RANGE for name, values in cases.items() for value in values],
)
def test_values_out_of_range_are_refused_where_they_enter(build: Callable[..., object], name: str, value: Any) -> None:
    # Of two settings that do not fit each other either one may be named.
    named = "stability" if name == "top_n" and value in (2, [100, 2]) else name
    with pytest.raises(ValueError, match=rf"`{named}(\[\d\])?`.*(must|expected|needs?|but) ") as error:
        build(**{name: value})
    assert "\n" not in str(error.value)


def tiny_stream() -> ContinualDataModule:
    return ContinualDataModule(SimulatedStream(users=40, items=30, interactions=280, blocks=2))


def test_cutoffs_beyond_the_catalogue_are_refused_before_training_with_the_sizes(tmp_path: Path) -> None:
    trainer = StreamTrainer(accelerator="cpu", logger=False, default_root_dir=tmp_path / "run")
    stream = tiny_stream()
    first, last = (block.num_items for block in stream.blocks)
    with pytest.raises(
        ValueError, match=rf"`ks` holds 100, but the stream has {last} items \({first} of them in block 0\)"
    ):
        trainer.fit(system(), datamodule=stream)
    assert not (tmp_path / "run").exists()
    system(ks=(last,)).check_cutoffs(stream.blocks)


@pytest.mark.parametrize("teacher", [BPRMF, MultVAE])
@pytest.mark.parametrize("sample", [None, 10_000])
def test_lists_longer_than_the_catalogue_take_all_of_it(tmp_path: Path, teacher: Any, sample: int | None) -> None:
    """`top_n`, `list_length`, `sample`, `exclusion` are limits, so a small catalogue is no mistake."""
    callback = DistillationCallback(
        GenerationSettings(list_length=10_000, sample=sample),
        ReplaySettings(top_n=10_000, stability=9_000, plasticity=10_000),
        TeacherReplaySettings(top_n=10_000, stability=9_000, student=1),
        GraphSettings(weight=1.0, sample=10_000),
        exclusion=10_000,
    )
    trainer = StreamTrainer(
        max_epochs=1, accelerator="cpu", logger=False, callbacks=[callback], default_root_dir=tmp_path
    )
    model = CollaborativeDistillation(Student(LightGCN(4)), [Teacher(teacher(4)), Teacher(BPRMF(4))], ks=(5,))
    trainer.fit(model, datamodule=tiny_stream())
    assert trainer.stages_done == 3 + 4


# Files


ROWS = [
    (user, (user * 7 + place * 3 + block) % 20, block, split)
    for block in (0, 1)
    for user in range(12)
    for place, split in enumerate(["train"] * 4 + ["valid", "test"])
]
TABLE = pl.DataFrame(ROWS, schema=["user", "item", "block", "split"], orient="row")
CSV = TABLE.write_csv()


def parquet(table: pl.DataFrame) -> bytes:
    from io import BytesIO

    target = BytesIO()
    table.write_parquet(target)
    return target.getvalue()


def changed(column: str, row: int, value: Any) -> bytes:
    values = TABLE[column].to_list()
    values[row] = value
    return parquet(TABLE.with_columns(pl.Series(column, values, strict=False)))


BLOCK_TABLES: dict[str, tuple[bytes | None, str]] = {
    "absent.parquet": (None, "there is no such file"),
    "folder.parquet": (b"folder", "is a folder, but a file is needed"),
    "text.parquet": (CSV.encode(), "named .parquet, its content is not Parquet"),
    "cut.parquet": (parquet(TABLE)[:-20], "it is truncated, its end is missing"),
    "holed.parquet": (parquet(TABLE)[:100] + b"\xff" * 60 + parquet(TABLE)[160:], "cannot be read as Parquet"),
    "binary.csv": (bytes(range(256)) * 8, "its content is binary"),
    "parquet.csv": (parquet(TABLE), "its content is Parquet"),
    "empty.csv": (b"", "is empty, but a table is needed"),
    "empty.parquet": (b"", "is empty, but a table is needed"),
    "header.csv": (b"user,item,block,split\n", "holds no row"),
    "latin.csv": ("user,item,block,split\nJosé,1,0,train\n".encode("latin1"), "invalid utf-8"),
    "utf16.csv": (CSV.encode("utf-16"), "its content is binary"),
    "semicolons.csv": (CSV.replace(",", ";").encode(), "it has `user;item;block;split`"),
    "ragged.csv": (b"user,item,block,split\n1,2,0,train,9\n", "found more fields than defined"),
    "quote.csv": (b'user,item,block,split\n"1,2,0,train\n' * 500, "cannot be read as a text table"),
    "table.xlsx": (CSV.encode(), "the suffix '.xlsx' is not known"),
    "columns.csv": (TABLE.drop("split").write_csv().encode(), "has no column `split`"),
    "null.parquet": (changed("user", 3, None), "column `user`, row 4: the value is missing"),
    "split.parquet": (changed("split", 1, "dev"), "column `split`, row 2: 'dev' is no split"),
    "word.parquet": (changed("block", 2, "two"), "column `block`, row 3: 'two' is no whole number"),
    "gap.parquet": (parquet(TABLE.with_columns(pl.col("block") * 2)), "so block 1 is empty or skipped"),
    "backwards.parquet": (parquet(TABLE.reverse()), "the first block is 1"),
    "back.parquet": (parquet(pl.concat([TABLE, TABLE])), "block 0 comes after block 1"),
    "held_out.parquet": (
        parquet(TABLE.filter((pl.col("block") == 0) | (pl.col("split") != "train"))),
        "block 1 is empty of train rows",
    ),
    "struct.parquet": (parquet(TABLE.with_columns(block=pl.struct("block"))), "column `block` holds Struct"),
    "nested.parquet": (parquet(TABLE.with_columns(block=pl.concat_list("block"))), "column `block` holds List"),
    "floats.parquet": (parquet(TABLE.with_columns(pl.col("item").cast(pl.Float64))), "ids must be integers or strings"),
    "huge.parquet": (parquet(TABLE.with_columns(user=pl.lit(2**63, dtype=pl.UInt64))), "must be below 2**63"),
}


def source_of(kind: str, path: Path, **arguments: Any) -> list[str]:
    given = [part for name, value in arguments.items() for part in (f"--data.source.{name}", str(value))]
    return ["--data.source", f"ccd_lightning.data.{kind}", "--data.source.path", str(path), *given]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options of a short run without any source."""
    path = tmp_path_factory.mktemp("base") / "base.yaml"
    text = Path(TINY[1]).read_text()
    path.write_text(re.sub(r"^data:\n(?:  .*\n)+", "", text, flags=re.MULTILINE))
    return ["--config", str(path), "--trainer.accelerator", "cpu", "--model.ks", "[5]", *SHORT]


def refused_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], base: list[str], source: list[str], message: str
) -> None:
    told = refusal(capsys, ["fit", *base, *source, "--trainer.default_root_dir", str(tmp_path / "run")])
    assert message in told
    assert source[3] in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", list(BLOCK_TABLES))
def test_block_table_that_is_wrong_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], base: list[str], name: str
) -> None:
    content, message = BLOCK_TABLES[name]
    if content == b"folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    refused_source(tmp_path, capsys, base, source_of("BlockTable", tmp_path / name), message)


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("user,item\n1,2\n", {}, "has no column `time`"),
        ("user,item,time\n1,2,soon\n", {}, "column `time`, row 1: 'soon' is no time"),
        ("user,item,time\n1,2,\n", {}, "column `time`, row 1: the value is missing"),
        ("user,item,time\n1,2,nan\n", {}, "column `time`, row 1: 'nan' is no time"),
        ("user,item,time\n1,2,3\n", {}, "none of the 1 interactions is left by the 5-core filter"),
        (
            "user,item,time\n1,2,3\n",
            {"core": 0, "period": "1 fortnight"},
            "`period` is '1 fortnight', which is no length",
        ),
        ("user,item,time\n1,2,3000000000000\n", {"core": 0, "period": "1mo"}, "is beyond the year 5000"),
        ("user,item,time\n1,2,1\n1,3,9000000\n", {"core": 0, "period": "1mo"}, "its block would be empty"),
        ("1,2,3\n", {"has_header": "false", "columns": "[a,b,c,d]"}, "has 3 columns, but `columns` names 4"),
    ],
)
def test_log_that_is_wrong_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    base: list[str],
    content: str,
    arguments: dict[str, Any],
    message: str,
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(content)
    refused_source(tmp_path, capsys, base, source_of("InteractionLog", path, **arguments), message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no TASK_0.pickle"),
        (b"", "cannot be read as a task"),
        (pickle.dumps({"train_dict": {1: [2]}, "valid_dict": {}, "test_dict": {}})[:-5], "cannot be read as a task"),
        (pickle.dumps({"train": {1: [2]}}), "the dicts train_dict, valid_dict, test_dict are needed"),
        (pickle.dumps(pl.Series), "which is refused"),
    ],
    ids=["absent", "empty", "cut", "keys", "foreign"],
)
def test_task_pickles_that_are_wrong_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], base: list[str], content: bytes | None, message: str
) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    if content is not None:
        (folder / "TASK_0.pickle").write_bytes(content)
    refused_source(tmp_path, capsys, base, source_of("TaskPickles", folder), message)


# Places and checkpoints


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished stream of two blocks; tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    main(["fit", *TINY, "--trainer.default_root_dir", str(folder)])
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def on(run: Path, *arguments: str) -> list[str]:
    return [*TINY, "--trainer.default_root_dir", str(run), "--ckpt_path", "last", *arguments]


def test_run_below_a_file_is_refused_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    told = refusal(capsys, ["fit", *TINY, "--trainer.default_root_dir", str(tmp_path / "file" / "run")])
    assert "Not a directory" in told
    assert files_in(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("file", "is there already and no export (it holds a file)"),
        ("file/export", "could not be written"),
        ("own", "is there already and no export (it holds thesis.tex)"),
        ("run", "is there already and no export (it holds checkpoints, config.yaml, metrics.csv)"),
    ],
)
def test_export_leaves_what_is_not_its_own(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str], option: str, message: str
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.tex").write_text("years of work")
    before = files_in(tmp_path)
    assert message in refusal(capsys, ["export", *on(run, "--output", str(tmp_path / option))])
    assert files_in(tmp_path) == before


def test_export_replaces_an_earlier_export(run: Path) -> None:
    for _ in range(2):
        main(["export", *on(run)])
    assert json.loads((run / "export" / "manifest.json").read_text())["block"] == 1
    assert not list(run.glob("*.tmp"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recommendations.path", "{run}"], "a folder: name a file"),
        (["--recommendations.path", "{run}/config.yaml/top.parquet"], "Check that the path exists"),
        (["--recommendations.k", "5000"], "`k` is 5000, but the student knows"),
    ],
)
def test_predict_refuses_before_it_writes(
    run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    before = files_in(run)
    told = refusal(capsys, ["predict", *on(run, *(part.format(run=run) for part in arguments))])
    assert message in told
    assert files_in(run) == before


def newest(run: Path) -> Path:
    return checkpoints_in(run)[-1]


def alone(run: Path, content: bytes) -> None:
    """Leave one checkpoint, with the given content."""
    last = newest(run)
    for path in checkpoints_in(run):
        path.unlink()
    last.write_bytes(content)


def saved(tmp_path: Path, payload: Any) -> bytes:
    torch.save(payload, tmp_path / "made.pt")
    return (tmp_path / "made.pt").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a stream checkpoint"),
        (b"not a checkpoint", "cannot be read as a stream checkpoint"),
        ({"weights": 1}, "is no stream checkpoint: pass a file written by `StreamCheckpoint`"),
        ([1, 2], "is no stream checkpoint"),
        ({"version": "one", "system": {}}, "is no stream checkpoint"),
        ({"version": VERSION + 1, "system": {}}, f"reads up to version {VERSION}: upgrade ccd-lightning"),
        ({"version": VERSION, "system": {}}, "lacks callbacks, fingerprints, loops"),
    ],
    ids=["empty", "text", "other", "list", "version word", "newer", "incomplete"],
)
@pytest.mark.parametrize("command", ["fit", "test"])
def test_checkpoint_that_is_none_is_refused(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str], command: str, content: Any, message: str
) -> None:
    alone(run, content if isinstance(content, bytes) else saved(tmp_path, content))
    before = files_in(run)
    told = refusal(capsys, [command, *on(run)])
    assert message in told
    assert "weights_only" not in told, "torch advises to load it unsafely"
    assert files_in(run) == before


def test_checkpoint_named_by_the_user_is_looked_at_by_nobody_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """LightningCLI would read hyper-parameters from any file before the run begins."""
    path = tmp_path / "other.ckpt"
    path.write_bytes(saved(tmp_path, {"hyper_parameters": {"fusion_power": 3.0}, "state_dict": {}}))
    for content in (path.read_bytes(), b"text", b""):
        path.write_bytes(content)
        arguments = ["fit", *TINY, "--trainer.default_root_dir", str(tmp_path / "run"), "--ckpt_path", str(path)]
        assert "stream checkpoint" in refusal(capsys, arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.student.backbone.dim", "5"], "was written by another model than the configured one"),
        (["--model.student.backbone", "MultVAE"], "was written by another model"),
        (["--data.source.seed", "7"], "block 0 is not the one the run was trained on"),
        (["--data.source.blocks", "1"], "block 1 is gone"),
        (["--model.ks", "[4000]"], "`ks` holds 4000, but the stream has"),
        (["--report.metric", "recall@7"], "`metric` is 'recall@7', but the run measures"),
    ],
)
def test_resume_with_something_else_keeps_the_run_as_it_is(
    run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    before = files_in(run)
    assert message in refusal(capsys, ["fit", *on(run, *arguments)])
    assert files_in(run) == before, "the good configuration and the checkpoints stay"


def test_state_within_a_stage_of_another_model_is_refused(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = newest(run)
    part = last.with_suffix(".part")
    last.unlink()
    part.write_bytes(saved(tmp_path, {"state_dict": {"backbone.user_embedding": torch.zeros(3, 3)}}))
    assert "was written by another model than the configured one (backbone." in refusal(capsys, ["fit", *on(run)])
    part.write_bytes(saved(tmp_path, {"anything": 1}))
    with pytest.warns(UserWarning, match="cannot be read .* begins anew"):
        main(["fit", *on(run)])
    assert last.is_file()


@pytest.mark.parametrize(
    ("ckpt_path", "message"),
    [
        ("last", "There is no stream checkpoint in .*checkpoints: start the stream with `fit`"),
        ("{folder}/nowhere", "no such file or folder exists: pass `last`"),
        ("{folder}", "There is no stream checkpoint in"),
    ],
)
def test_checkpoint_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ckpt_path: str, message: str
) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    where = ["--trainer.default_root_dir", str(tmp_path / "run"), "--ckpt_path", ckpt_path.format(folder=tmp_path)]
    for command in ("fit", "test", "predict", "export"):
        assert re.search(message, refusal(capsys, [command, *TINY, *where]))
    assert not files_in(tmp_path)


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 kB; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    system_calls = ctypes.CDLL(None, use_errno=True)
    if system_calls.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=400k"):
        pytest.skip(f"a small disk cannot be mounted here: {os.strerror(ctypes.get_errno())}")
    yield folder
    system_calls.umount2(os.fsencode(folder), 2)


def fill(disk: Path, free: int) -> None:
    """Take the disk's room but for some bytes."""
    room = shutil.disk_usage(disk).free - free
    (disk / "filler").write_bytes(b"\0" * max(room, 0))


def drafts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and ".tmp" in path.name]


def test_disk_that_fills_up_leaves_the_last_good_checkpoint(
    small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_disk / "run"
    fill(small_disk, 130_000)
    told = refusal(capsys, ["fit", *TINY, "--trainer.default_root_dir", str(run)])
    assert "disk is full" in told
    assert "--ckpt_path last" in told
    found = checkpoints_in(run)
    assert found
    for path in found:
        assert read_checkpoint(path)["stages_done"] >= 1
    assert not drafts(run)
    json.loads((run / "metrics.json").read_text())


@pytest.mark.parametrize("command", ["predict", "export"])
def test_full_disk_leaves_no_torn_output(
    small_disk: Path, finished: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    fill(small_disk, 0)
    before = set(small_disk.iterdir())
    outputs = {"predict": ["--recommendations.path", "top.parquet"], "export": ["--output", "export"]}
    option, name = outputs[command]
    told = refusal(capsys, [command, *on(finished, option, str(small_disk / name))])
    assert "disk is full" in told or "No space left" in told
    assert set(small_disk.iterdir()) == before


def test_full_disk_in_the_middle_of_a_file(small_disk: Path) -> None:
    good = small_disk / "00001-block0-base-0.ckpt"
    payload = {name: 0 for name in ("system", "stage", "stages_done", "record", "fingerprints", "callbacks", "loops")}
    write_checkpoint(good, payload)
    content = good.read_bytes()
    for target in (good, small_disk / "00002-block0-distillation.ckpt"):
        with pytest.raises(
            MisconfigurationException, match=rf"{target.name} could not be written \(the disk is full\)"
        ):
            write_checkpoint(target, {**payload, "system": torch.randn(1000, 1000)})
    assert good.read_bytes() == content
    read_checkpoint(good)
    ids = pl.Series([os.urandom(32).hex() for _ in range(20_000)])
    with pytest.raises(OSError, match=r"users.parquet could not be written .*No space left on device.*has room"):
        IdMap(ids).save(small_disk / "users.parquet")
    assert [path.name for path in small_disk.iterdir()] == [good.name]
