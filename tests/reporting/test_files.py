"""Files that are whole or absent."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from ccd_lightning.reporting import to_json, write_atomically


def test_write_atomically_keeps_the_old_file_when_the_disk_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_atomically(path, "old")

    def fail(descriptor: int) -> None:
        raise OSError("full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_to_json_keeps_full_precision_and_replaces_what_json_lacks() -> None:
    values = {"third": 1 / 3, "tiny": 5e-324, "rows": [(math.nan, math.inf)], 7: None}
    assert json.loads(to_json(values)) == {"third": 1 / 3, "tiny": 5e-324, "rows": [[None, None]], "7": None}
