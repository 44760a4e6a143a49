"""What an export holds, and what it says when something cannot be written."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from safetensors.numpy import load_file

from ccd_lightning.backbones import BPRMF, Backbone, ItemKNN, MultVAE, Popularity
from ccd_lightning.export import Role, export_model, scorer_of, writer
from ccd_lightning.modules import TeacherSystem
from tests.exports import Biased, Untraceable, Wrong, exported, met, stream, student

SIZES = stream().blocks[-1].num_users, stream().blocks[-1].num_items
LIBRARIES = ("ccd_lightning", "lightning", "onnx", "onnxscript", "polars", "pyarrow", "safetensors", "torch")
WALL = """
import sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {forbidden}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Wall())
"""


def run_example(folder: Path, word: str, forbidden: tuple[str, ...]) -> str:
    """What the README's example with this word prints where some libraries cannot be imported."""
    examples = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    code = next(example for example in examples if word in example)
    command = [sys.executable, "-I", "-c", WALL.format(forbidden=forbidden) + code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def best_without(users: list[int], exclude: list[list[int]]) -> np.ndarray:
    """Items of the student by a sort in numpy."""
    with torch.no_grad():
        scores = student().scores(torch.tensor(users)).numpy()
    for row, items in enumerate(exclude):
        scores[row, items] = -np.inf
    return np.argsort(-scores, axis=1)[:, :20]


def test_example_needs_numpy_and_onnxruntime_alone() -> None:
    printed = run_example(exported(), "users = numpy.array([0, 1])", LIBRARIES)
    assert printed.startswith(str(best_without([0, 1], [[0, 2], [1]]).tolist()))


def seen_by(user: int) -> list[int]:
    return sorted({item for block in stream().blocks for item in block.train.items[block.train.users == user].tolist()})


@pytest.mark.parametrize(("word", "without_seen"), [("seen.parquet", True), ("safetensors.numpy", False)])
def test_examples_in_raw_ids_need_no_torch(word: str, without_seen: bool) -> None:
    printed = run_example(exported(), word, ("ccd_lightning", "lightning", "torch"))
    best = best_without([0], [seen_by(0) if without_seen else []])[0]
    assert printed.startswith(str(stream().stream.items.decode(torch.from_numpy(best)).to_list()))


def test_manifest_holds_checksums_and_sizes() -> None:
    manifest = json.loads((exported() / "manifest.json").read_text())
    files = {path.name for path in exported().iterdir()} - {"manifest.json"}
    assert manifest["sha256"] == {name: hashlib.sha256((exported() / name).read_bytes()).hexdigest() for name in files}
    assert (manifest["num_users"], manifest["num_items"], manifest["block"]) == (*SIZES, 2)
    assert manifest["missing"] == {}
    tensors = load_file(exported() / "student.safetensors")
    assert tensors["users"].shape == (SIZES[0], 4)


def test_files_can_be_read_by_whoever_may_read_the_manifest() -> None:
    assert len({path.stat().st_mode for path in exported().iterdir()}) == 1


def test_tables_are_what_the_data_says() -> None:
    tables = {name: pl.read_parquet(exported() / f"{name}.parquet") for name in ("users", "items", "seen", "popular")}
    raw = stream().source.table().filter(pl.col("split") == "train")
    numbered = raw.join(tables["users"], left_on="user", right_on="raw").join(
        tables["items"], left_on="item", right_on="raw", suffix="_item"
    )
    seen = numbered.select(user="id", item="id_item").unique().sort("user", "item")
    assert tables["seen"].rows() == seen.rows()
    counts = dict(numbered.filter(pl.col("block") == 2).unique(["id", "id_item"])["id_item"].value_counts().iter_rows())
    assert dict(tables["popular"].iter_rows()) == {item: counts.get(item, 0) for item in range(SIZES[1])}
    assert tables["popular"]["count"].is_sorted(descending=True)


def test_seen_items_stay_at_home_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_write_programs", lambda *_: {})
    export_model(student(), stream().stream, tmp_path / "export", seen=False)
    assert not (tmp_path / "export" / "seen.parquet").exists()
    assert "seen.parquet" not in (tmp_path / "export" / "README.md").read_text()


def test_untraceable_backbone_gets_all_but_the_programs(tmp_path: Path) -> None:
    manifest = export_model(met(Untraceable()), stream().stream, tmp_path / "export")
    assert set(manifest["missing"]) == {"student.onnx", "student.pt2"}
    reason = manifest["missing"]["student.onnx"]
    assert re.search(r"cannot be traced \(.+\): take sizes from `users.shape\[0\]` .* or define `factors`", reason)
    assert "backbone.popularity" in load_file(tmp_path / "export" / "student.safetensors")
    readme = (tmp_path / "export" / "README.md").read_text()
    assert reason in readme
    assert "InferenceSession" not in readme


def test_without_the_extra_the_rest_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "missing_packages", lambda: ["onnxscript"])
    missing = export_model(met(Biased()), stream().stream, tmp_path / "export")["missing"]
    assert list(missing) == ["student.onnx"]
    assert "onnxscript must be installed: `pip install 'ccd-lightning[export]'`" in missing["student.onnx"]
    assert {"student.pt2", "student.safetensors"} <= {path.name for path in (tmp_path / "export").iterdir()}


def test_models_beyond_the_size_of_an_onnx_file_get_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "ONNX_BYTES", 1000)
    missing = export_model(student(), stream().stream, tmp_path / "export")["missing"]
    assert "an ONNX file holds 0.0 GB: use the `.pt2`" in missing["student.onnx"]
    assert (tmp_path / "export" / "student.pt2").exists()


def test_onnx_that_differs_from_the_model_is_not_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "same_lists", lambda *_: False)
    missing = export_model(student(), stream().stream, tmp_path / "export")["missing"]
    assert "its lists differ from the model's" in missing["student.onnx"]
    assert not (tmp_path / "export" / "student.onnx").exists()


def test_onnx_without_a_word_for_the_scores_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("No decomposition for fancy")

    monkeypatch.setattr(writer, "write_onnx", refuse)
    missing = export_model(student(), stream().stream, tmp_path / "export")["missing"]
    assert "no way to say what `scores` does (RuntimeError: No decomposition for fancy)" in missing["student.onnx"]
    assert (tmp_path / "export" / "student.pt2").exists()


def test_scores_that_are_no_products_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=r"scores differ from those of Wrong by up to 1, .* `factors`"):
        export_model(met(Wrong(4)), stream().stream, tmp_path / "export")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("member", [ItemKNN, Popularity, lambda: MultVAE(4)])
def test_teacher_system_with_ties_is_exported(tmp_path: Path, member: Callable[[], Backbone]) -> None:
    system = TeacherSystem([met(BPRMF(4)), met(member())])
    assert export_model(system, stream().stream, tmp_path / "export", "teacher")["missing"] == {}


class Rounded(BPRMF):
    """Every second item is a little better than its tables say."""

    def scores(self, users: torch.Tensor) -> torch.Tensor:
        scores = super().scores(users)
        return scores + 1e-5 * (torch.arange(scores.shape[1]) % 2)


def test_nearly_equal_scores_of_a_member_may_round_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_write_programs", lambda *_: {})
    member = met(Rounded(4))
    with torch.no_grad():
        member.item_embedding.copy_(member.item_embedding[::2].repeat_interleave(2, 0))
    system = TeacherSystem([student(), member])
    users = torch.arange(SIZES[0])
    assert (scorer_of(system)(users) - system.scores(users)).abs().max() > 1e-3
    export_model(system, stream().stream, tmp_path / "export", "teacher")


def test_members_whose_scores_are_no_products_are_refused(tmp_path: Path) -> None:
    system = TeacherSystem([student(), met(Wrong(4))])
    with pytest.raises(MisconfigurationException, match=r"scores differ from those of Wrong by up to 1, .* `factors`"):
        export_model(system, stream().stream, tmp_path / "export", "teacher")


@pytest.mark.parametrize(("model", "role"), [(BPRMF(4), "student"), (TeacherSystem([BPRMF(4), ItemKNN()]), "teacher")])
def test_models_that_know_nobody_are_refused(tmp_path: Path, model: Backbone | TeacherSystem, role: Role) -> None:
    message = rf"The {role} knows nobody yet \(BPRMF.* met no block\), .* let `fit --ckpt_path last` finish block 0"
    with pytest.raises(MisconfigurationException, match=message):
        export_model(model, stream().stream, tmp_path / "export", role)
    assert not list(tmp_path.iterdir())


def test_teacher_system_with_one_member_that_knows_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=r"The teacher knows nobody yet \(MultVAE has met no block\)"):
        export_model(TeacherSystem([student(), MultVAE(4)]), stream().stream, tmp_path / "export", "teacher")


def test_export_to_a_link_replaces_what_it_points_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_write_programs", lambda *_: {})
    link = tmp_path / "current"
    link.symlink_to("v1")
    # The first export makes the folder, the second one replaces it.
    for seen in (True, False):
        export_model(student(), stream().stream, link, seen=seen)
        assert link.readlink() == Path("v1")
        assert (tmp_path / "v1" / "seen.parquet").exists() == seen
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "v1"]


def test_a_full_disk_under_the_tables_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise pl.exceptions.ComputeError("No space left on device (os error 28)")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(MisconfigurationException, match=r"could not be written \(No space left.*has room"):
        export_model(student(), stream().stream, tmp_path / "export")
    assert not list(tmp_path.iterdir())
