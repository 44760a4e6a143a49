"""Folders change places under the eyes of a reader."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from ccd_lightning.export import folders
from ccd_lightning.export.folders import replace_folder


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
