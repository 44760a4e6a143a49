"""Folders change places under the eyes of a reader."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from ccd_lightning.export import folders
from ccd_lightning.export.folders import drafted, replace_folder


def write(folder: Path, content: str) -> Path:
    folder.mkdir()
    (folder / "manifest.json").write_text(content)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges folders in one step")
def test_a_reader_never_finds_the_folder_absent(tmp_path: Path) -> None:
    folder, missed, done = write(tmp_path / "export", "0"), [], threading.Event()

    def read() -> None:
        while not done.is_set():
            if not (folder / "manifest.json").exists():
                missed.append(True)

    reader = threading.Thread(target=read)
    reader.start()
    for index in range(300):
        replace_folder(write(tmp_path / "draft", str(index)), folder)
    done.set()
    reader.join()
    assert not missed


@pytest.mark.parametrize("exchanges", [True, False])
def test_the_draft_takes_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool) -> None:
    if not exchanges:
        monkeypatch.setattr(folders, "_exchange", lambda *_: False)
    for content in ("first", "second"):
        replace_folder(write(tmp_path / "draft", content), tmp_path / "export")
        assert (tmp_path / "export" / "manifest.json").read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_link_stays_a_link_and_its_target_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(folders, "_exchange", lambda *_: False)
    write(tmp_path / "v1", "old")
    link = tmp_path / "current"
    link.symlink_to("v1")
    replace_folder(write(tmp_path / "draft", "new"), link)
    assert link.readlink() == Path("v1")
    assert (tmp_path / "v1" / "manifest.json").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "v1"]


def test_a_draft_stands_beside_what_a_link_points_to(tmp_path: Path) -> None:
    """The link may point to another file system, from which no folder can be renamed."""
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "current"
    link.symlink_to(Path("elsewhere") / "v1")
    for content in ("first", "second"):
        with drafted(link) as draft:
            assert draft.parent == tmp_path.resolve() / "elsewhere"
            (draft / "manifest.json").write_text(content)
        assert (tmp_path / "elsewhere" / "v1" / "manifest.json").read_text() == content
    assert link.is_symlink()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["v1"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_a_killed_process_left_is_no_hindrance(tmp_path: Path, kind: str) -> None:
    left = tmp_path / ".export.tmp"
    if kind == "folder":
        write(left, "half")
    elif kind == "file":
        left.write_text("half")
    else:
        left.symlink_to(write(tmp_path / "v1", "kept"))
    with drafted(tmp_path / "export") as draft:
        (draft / "manifest.json").write_text("whole")
    assert (tmp_path / "export" / "manifest.json").read_text() == "whole"
    assert [path.name for path in tmp_path.glob(".*")] == []
    assert kind != "link" or (tmp_path / "v1" / "manifest.json").read_text() == "kept"


def test_two_drafts_of_one_folder_are_never_mixed(tmp_path: Path) -> None:
    write(tmp_path / "export", "old")
    with drafted(tmp_path / "export") as draft:
        refused = pytest.raises(ValueError, match=r"Another process is writing .*export: wait until it is done")
        with refused, drafted(tmp_path / "export"):
            pytest.fail("two at a time")
        (draft / "manifest.json").write_text("new")
    assert (tmp_path / "export" / "manifest.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    with drafted(tmp_path / "export") as draft:
        (draft / "manifest.json").write_text("newer")
    assert (tmp_path / "export" / "manifest.json").read_text() == "newer"
