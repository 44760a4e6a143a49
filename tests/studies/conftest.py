"""Studies whose runs are played by a few lines, and studies of real runs on a tiny stream."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ccd_lightning.studies import Method, Run, Study, runner

from ..helpers import CONFIGS, SHORT

TINY = [
    *SHORT,
    *(f"--data.source.{name}={size}" for name, size in (("users", 150), ("items", 100), ("interactions", 3500))),
    *("--data.source.blocks=2", "--model.ks=[20]", "--report.figures=false"),
]
"""Arguments that make a run of configs/ccd.yaml take a second."""

ACTOR = """
import json, os, signal, sys, time
from pathlib import Path
options = dict(part[2:].split("=", 1) for part in sys.argv[1:] if part.startswith("--") and "=" in part)
folder = Path(options["--trainer.default_root_dir"[2:]])
kind = folder.name.rsplit("-", 1)[0]
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
with (folder / "calls.txt").open("a") as calls:
    calls.write(options.get("ckpt_path", "begin") + "\\n")
if (folder / "kill").exists():
    os.kill(os.getpid(), signal.SIGKILL)
if (folder / "quiet").exists():
    raise SystemExit(3)
if kind == "bad":
    print("error: the settings are wrong")
    raise SystemExit(2)
(folder / "checkpoints" / "00003-block0-distillation.ckpt").touch()
def leave(*_):
    (folder / "saved").touch()
    raise SystemExit(143)
signal.signal(signal.SIGTERM, leave)
(folder / "working").touch()
time.sleep(float(options.get("pause", 0)))
(folder / "metrics.json").write_text("{}")
(folder / "stream.json").write_text(json.dumps({"status": "finished"}))
"""
"""Plays a run: notes how it was called, leaves a checkpoint of D_0, fails if its method is called `bad`."""


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are played by :data:`ACTOR`."""
    monkeypatch.setattr(runner, "_PROGRAM", ACTOR)


@pytest.fixture
def played(tmp_path: Path, actor: None) -> Callable[..., Study]:
    """Makes a study of played runs: methods by name with the settings of their one overlay."""

    def make(methods: dict[str, str], **options: Any) -> Study:
        (tmp_path / "base.yaml").write_text("seed_everything: 0\n")
        for name, overlay in methods.items():
            (tmp_path / f"{name}.yaml").write_text(overlay)
        found = {name: Method([str(tmp_path / f"{name}.yaml")]) for name in methods}
        defaults = {"ours": next(iter(methods)), "seeds": [0], "output": str(tmp_path / "study")}
        return Study([str(tmp_path / "base.yaml")], found, **{**defaults, **options})

    return make


def calls_of(run: Run) -> list[str]:
    """With which checkpoints a played run was called."""
    path = run.folder / "calls.txt"
    return path.read_text().split() if path.is_file() else []


def overlay(folder: Path, name: str, content: dict[str, Any]) -> str:
    """A configuration file of the given content (JSON is YAML)."""
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(content))
    return str(path)


CCD = str(CONFIGS / "ccd.yaml")
