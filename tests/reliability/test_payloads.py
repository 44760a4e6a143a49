"""Nothing from a file is ever executed: planted payloads leave no mark, and the message says what was refused."""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import polars as pl
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ccd_lightning.checkpoint import checkpoints_in
from ccd_lightning.cli import main
from ccd_lightning.data import IdMap
from ccd_lightning.serving import load_export
from tests.exports import exported, sign
from tests.reliability.refusals import SHORT, TINY, refusal


class Payload:
    """Touches a file wherever it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def as_pickle(payload: object) -> bytes:
    return pickle.dumps({"train_dict": {1: [payload]}, "valid_dict": {}, "test_dict": {}})


def as_torch(payload: object) -> bytes:
    """The way `torch.save` writes since 1.6: a pickle inside of a zip file."""
    buffer = io.BytesIO()
    torch.save({"version": 1, "system": payload, "state_dict": payload}, buffer)
    return buffer.getvalue()


def as_old_torch(payload: object) -> bytes:
    buffer = io.BytesIO()
    torch.save({"version": 1, "system": payload}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


FORMS = {"pickle": as_pickle, "torch": as_torch, "old torch": as_old_torch}


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("payloads") / "run"
    main(["fit", *TINY, "--trainer.default_root_dir", str(folder)])
    return folder


def on(run: Path) -> list[str]:
    return [*TINY, "--trainer.default_root_dir", str(run), "--ckpt_path", "last"]


@pytest.mark.parametrize("form", list(FORMS))
def test_the_payload_works_where_pickles_are_trusted(marker: Path, form: str) -> None:
    content = FORMS[form](Payload(marker))
    if form == "pickle":
        pickle.loads(content)
    else:
        torch.load(io.BytesIO(content), weights_only=False)
    assert marker.exists()


def without_source(tmp_path: Path) -> list[str]:
    path = tmp_path / "base.yaml"
    path.write_text(re.sub(r"^data:\n(?:  .*\n)+", "", Path(TINY[1]).read_text(), flags=re.MULTILINE))
    run = ["--trainer.default_root_dir", str(tmp_path / "run")]
    return ["fit", "--config", str(path), "--trainer.accelerator", "cpu", "--model.ks", "[1]", *SHORT, *run]


@pytest.mark.parametrize("form", list(FORMS))
def test_task_pickle_runs_nothing(tmp_path: Path, marker: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    (tmp_path / "TASK_0.pickle").write_bytes(FORMS[form](Payload(marker)))
    source = ["--data.source", "ccd_lightning.data.TaskPickles", "--data.source.path", str(tmp_path)]
    told = refusal(capsys, [*without_source(tmp_path), *source])
    # The old form of torch begins with a number, a whole pickle of its own.
    assert re.search("TASK_0.pickle (cannot be read as a task|holds int, but the dicts)", told)
    assert form != "pickle" or "system`, which is refused" in told
    assert not marker.exists()


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("command", ["fit", "test", "predict", "export"])
def test_checkpoint_runs_nothing(
    tmp_path: Path, marker: Path, capsys: pytest.CaptureFixture[str], command: str, form: str
) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    path = folder / "00001-block0-base-0.ckpt"
    path.write_bytes(FORMS[form](Payload(marker)))
    for ckpt_path in ("last", str(path)):
        arguments = [*TINY, "--trainer.default_root_dir", str(tmp_path / "run"), "--ckpt_path", ckpt_path]
        told = refusal(capsys, [command, *arguments])
        assert "cannot be read as a stream checkpoint" in told
        assert "nothing of it was run" in told
        assert "weights_only" not in told
    assert "posix.system`, but only tensors and plain values are admitted" in told or form == "pickle"
    assert not marker.exists()


def test_state_within_a_stage_runs_nothing(marker: Path, run: Path) -> None:
    """The unfinished stage begins anew from the checkpoint before it."""
    last = checkpoints_in(run)[-1]
    last.unlink()
    last.with_suffix(".part").write_bytes(as_torch(Payload(marker)))
    with pytest.warns(UserWarning, match=r"\.part cannot be read \(it asks for `posix.system`.*begins anew"):
        main(["fit", *on(run)])
    assert last.is_file()
    assert not marker.exists()


def test_damaged_newest_checkpoint_runs_nothing_and_the_one_before_is_taken(marker: Path, run: Path) -> None:
    last = checkpoints_in(run)[-1]
    last.write_bytes(as_torch(Payload(marker)))
    with pytest.warns(UserWarning, match=r"it asks for `posix.system`.* Going on from .*\.ckpt instead"):
        main(["fit", *on(run)])
    assert not marker.exists()
    main(["test", *on(run)])


def test_export_files_run_nothing(tmp_path: Path, marker: Path) -> None:
    for name, load, error in (
        ("student.safetensors", load_file, SafetensorError),
        ("users.parquet", IdMap.load, ValueError),
    ):
        for form in FORMS.values():
            (tmp_path / name).write_bytes(form(Payload(marker)))
            with pytest.raises(error, match=r"cannot be read as an id map|[Hh]eader|deserializ"):
                load(tmp_path / name)
    assert not marker.exists()


@pytest.mark.parametrize("form", list(FORMS))
def test_served_exports_run_nothing(tmp_path: Path, marker: Path, form: str) -> None:
    """Each file that a server reads is a payload whose checksum is right; what it does not read may be anything."""
    content = FORMS[form](Payload(marker))
    names = ("student.onnx", "users.parquet", "items.parquet", "seen.parquet", "popular.parquet")
    for name in names:
        folder = Path(shutil.copytree(exported(), tmp_path / name))
        (folder / name).write_bytes(content)
        sign(folder)
        with pytest.raises(ValueError, match=rf"{name} cannot be read as (an ONNX model|Parquet)"):
            load_export(folder)
    folder = Path(shutil.copytree(exported(), tmp_path / "unread"))
    for name in ("student.pt2", "student.safetensors", "README.md", "more.pkl"):
        (folder / name).write_bytes(content)
    sign(folder)
    load_export(folder)
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as the manifest"):
        load_export(folder)
    assert not marker.exists()


@pytest.mark.parametrize("place", ["../secret", "{tmp_path}/secret", "secret"])
def test_served_models_reach_for_no_other_file(tmp_path: Path, place: str) -> None:
    """ONNX can keep its numbers in other files."""
    folder = Path(shutil.copytree(exported(), tmp_path / "export"))
    for secret in (tmp_path / "secret", folder / "secret"):
        secret.write_bytes(bytes(10_000))
    model = onnx.load(folder / "student.onnx")
    table = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 2)
    table.ClearField("raw_data")
    table.data_location = onnx.TensorProto.EXTERNAL
    table.external_data.add(key="location", value=place.format(tmp_path=tmp_path))
    (folder / "student.onnx").write_bytes(model.SerializeToString())
    sign(folder)
    with pytest.raises(ValueError, match=r"student\.onnx cannot be read as an ONNX model"):
        load_export(folder)


@pytest.mark.parametrize(
    "content",
    [
        "trainer: !!python/object/apply:os.system ['touch {marker}']",
        "!!python/object/new:os.system ['touch {marker}']",
        "trainer: {{max_epochs: !!python/object/apply:builtins.eval [\"open('{marker}', 'w')\"]}}",
        "data: {{source: !!python/name:os.system ''}}",
        "data: {{source: {{class_path: os.system, init_args: {{command: 'touch {marker}'}}}}}}",
        "data: {{source: {{class_path: subprocess.Popen, init_args: {{args: [touch, '{marker}']}}}}}}",
        "model: {{student: {{class_path: builtins.eval, init_args: {{source: \"open('{marker}', 'w')\"}}}}}}",
        "distillation: {{class_path: pathlib.Path.touch, init_args: {{self: '{marker}'}}}}",
        "trainer: {{max_epochs: '${{oc.create:{{x: !!python/object/apply:os.system [touch]}}}}'}}",
        "trainer: {{default_root_dir: '$(touch {marker})', max_epochs: '`touch {marker}`'}}",
    ],
)
def test_configuration_runs_nothing(
    tmp_path: Path, marker: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    """A configuration chooses classes, but only of the kind that the place asks for."""
    path = tmp_path / "mine.yaml"
    path.write_text(content.format(marker=marker))
    told = refusal(capsys, ["fit", *TINY, "--config", str(path)])
    assert re.search("constructor for the tag|subclass|no class|cannot be read as YAML|Expected a", told), told
    assert not marker.exists()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_formulas_and_code_are_plain_ids(tmp_path: Path, marker: Path, suffix: str) -> None:
    """Ids go from the data to the recommendations as they are, and into no file that a spreadsheet would calculate."""
    evil = [
        f"=cmd|'/C touch {marker}'!A0",
        f"$(touch {marker})",
        "</script><script>alert(1)</script>",
        "{{7*7}}",
        "${x}",
        "é🦊",
    ]
    rows = [
        (evil[user % 6] + str(user), evil[(user + place + block) % 6] + str((user + place) % 4), block, split)
        for block in (0, 1)
        for user in range(12)
        for place, split in enumerate(["train"] * 4 + ["valid", "test"])
    ]
    table = pl.DataFrame(rows, schema=["user", "item", "block", "split"], orient="row")
    path = tmp_path / f"rows.{suffix}"
    table.write_csv(path) if suffix == "csv" else table.write_parquet(path)
    source = ["--data.source", "ccd_lightning.data.BlockTable", "--data.source.path", str(path)]
    arguments = [*without_source(tmp_path)[1:], *source, "--report.figures", "true"]
    main(["fit", *arguments])
    for command in ("predict", "export"):
        main([command, *arguments, "--ckpt_path", "last", "--recommendations.k", "3"])
    run = tmp_path / "run"
    assert set(pl.read_parquet(run / "recommendations.parquet")["user"]) <= set(table["user"])
    assert set(pl.read_parquet(run / "export" / "items.parquet")["raw"]) == set(table["item"])
    for name in ("metrics.csv", "metrics.json", "stream.json", "report.html"):
        assert "touch" not in (run / name).read_text()
        assert "alert(1)" not in (run / name).read_text()
    readme = (run / "export" / "README.md").read_text()
    assert repr(table["user"][0]) in readme
    assert not marker.exists()


def test_checkpoints_of_the_library_hold_no_class(run: Path) -> None:
    """What is written can be read with plain values alone, so no pickle of it names a function."""
    for path in checkpoints_in(run):
        with zipfile.ZipFile(path) as archive:
            content: Any = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
        named = set(re.findall(rb"(?:^|[^\w.])c([\w.]+)\n([\w.]+)\n", content))
        modules = {module for module, _ in named}
        assert modules <= {b"collections", b"torch._utils", b"torch"}, named
