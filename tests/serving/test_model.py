"""Exports that cannot be served are refused with a reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch

from ccd_lightning.export.programs import FactorScorer, trace, write_onnx
from ccd_lightning.serving import LiveModel, load_export
from ccd_lightning.serving.app import _watch
from tests.exports import sign


def change(name: str, **columns: pl.Expr) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        pl.read_parquet(folder / name).with_columns(**columns).write_parquet(folder / name)
        sign(folder)

    return apply


def replace(name: str, content: bytes, signed: bool = True) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_bytes(content)
        if signed:
            sign(folder)

    return apply


def remove(name: str, signed: bool = False) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).unlink()
        if signed:
            sign(folder, missing={name: "onnxscript must be installed"})

    return apply


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no manifest": (
        remove("manifest.json"),
        "cannot be read as the manifest of an export .*: name a folder that `export`",
    ),
    "no JSON": (replace("manifest.json", b"\xff{", signed=False), "cannot be read as the manifest"),
    "deep JSON": (replace("manifest.json", b"[" * 100_000, signed=False), "cannot be read as the manifest"),
    "list": (replace("manifest.json", b"[1]", signed=False), "is of format None, but this release serves format 2"),
    "old format": (lambda folder: sign(folder, format=1), "is of format 1, .* export the model again"),
    "no sizes": (lambda folder: sign(folder, num_users="many"), "lacks sizes, role or checksums"),
    "strange role": (lambda folder: sign(folder, role="../secret"), "lacks sizes, role or checksums"),
    "other size": (lambda folder: sign(folder, num_users=7), "must hold numbers from 0 to 6"),
    "file gone": (remove("popular.parquet"), "popular.parquet cannot be read .No such file"),
    "no ONNX": (remove("student.onnx", signed=True), "not part of this export: onnxscript must be installed"),
    "changed": (replace("users.parquet", b"PAR1", signed=False), "SHA-256 .* changed or is not complete yet"),
    "no Parquet": (replace("users.parquet", b"PAR1 no more"), "cannot be read as Parquet with the columns raw, id"),
    "strange ids": (change("items.parquet", raw=pl.col("id") + 0.5), "must hold strings or integers"),
    "listed ids": (change("items.parquet", raw=pl.concat_list("id")), "must hold strings or integers"),
    "repeats": (change("items.parquet", raw=pl.lit("tea")), "ids in order without repeats"),
    "order": (change("users.parquet", id=pl.col("id").reverse()), "ids in order without repeats"),
    "seen beyond": (change("seen.parquet", item=pl.col("item") + 1), "`item` must hold numbers from 0 to"),
    "seen unsorted": (change("seen.parquet", user=pl.col("user").reverse()), "is not sorted by users"),
    "no ONNX content": (replace("student.onnx", b"nothing"), "cannot be read as an ONNX model"),
}


@pytest.mark.parametrize("case", list(BROKEN))
def test_broken_exports_are_refused(folder: Path, case: str) -> None:
    live = LiveModel(folder)
    version = live.model.version
    damage, message = BROKEN[case]
    damage(folder)
    with pytest.raises(ValueError, match=message):
        load_export(folder)
    assert not live.refresh()
    assert live.refused is not None
    assert live.model.version == version


def test_a_model_of_another_size_is_refused(folder: Path) -> None:
    """Every file is whole and signed, but they do not belong together."""
    manifest = json.loads((folder / "manifest.json").read_text())
    more = manifest["num_users"] + 5
    ids = pl.DataFrame({"raw": [f"user {index}" for index in range(more)], "id": range(more)})
    ids.write_parquet(folder / "users.parquet")
    sign(folder, num_users=more)
    with pytest.raises(ValueError, match=r"cannot be asked .*: export it again"):
        load_export(folder)


def test_scores_that_are_no_numbers_are_refused(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    nan = FactorScorer(torch.full((manifest["num_users"], 2), torch.nan), torch.ones(manifest["num_items"], 2))
    write_onnx(trace(nan), folder / "student.onnx")
    sign(folder)
    with pytest.raises(ValueError, match=r"does not rank its .* items with finite scores"):
        load_export(folder)


def test_a_folder_that_is_gone_for_a_while_changes_nothing(folder: Path) -> None:
    live = LiveModel(folder)
    away = folder.with_name("away")
    folder.rename(away)
    assert not live.refresh()
    assert "manifest" in str(live.refused)
    away.rename(folder)
    assert not live.refresh()
    assert live.refused is None


def test_a_folder_that_changes_at_every_look_is_not_settled(folder: Path) -> None:
    live = LiveModel(folder)
    content = (folder / "users.parquet").read_bytes()
    for size in (0, 100, 200):
        (folder / "users.parquet").write_bytes(content[:size])
        assert not live.refresh()
        assert live.refused is not None and not live.is_settled
    assert not live.refresh()
    assert live.refused is not None and live.is_settled


def test_nothing_is_read_again_while_nothing_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveModel(folder)
    monkeypatch.setattr("ccd_lightning.serving.live.load_export", lambda _: pytest.fail("read again"))
    assert not live.refresh()


def test_whatever_goes_wrong_with_a_new_export_the_old_one_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveModel(folder)

    def fail(_: Path) -> None:
        raise MemoryError("no room for two")

    (folder / "users.parquet").touch()
    with monkeypatch.context() as patched:
        patched.setattr("ccd_lightning.serving.live.load_export", fail)
        assert not live.refresh()
    assert live.refused == "MemoryError: no room for two"
    # What was in the way has passed, and no file has changed.
    assert not live.refresh()
    assert live.refused is None


def test_an_export_that_others_may_not_read_is_served_when_they_may(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveModel(folder)
    before = live._looked_at
    (folder / "users.parquet").chmod(0o640)
    assert not live.refresh()
    assert not live.is_settled
    assert live._looked_at != before


def test_server_looks_on_when_nobody_reads_its_log(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveModel(folder)
    looks: list[int] = []

    def refresh() -> bool:
        looks.append(1)
        if len(looks) == 3:
            raise KeyboardInterrupt
        return True

    def nobody(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(live, "refresh", refresh)
    monkeypatch.setattr("builtins.print", nobody)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(_watch(live, 0.0))
    assert len(looks) == 3
