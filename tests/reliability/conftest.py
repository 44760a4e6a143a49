"""Forked runs, and what two runs must have in common."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ccd_lightning.checkpoint import checkpoints_in, read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PROXY_REPLAY = ROOT / "configs" / "ablations" / "proxy_replay.yaml"
TIMES = ("seconds", "peak_bytes")
STOPS = "events"
"""How often a run was stopped, which is what differs."""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


class Nursery:
    """Runs jobs in forked processes, one after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.nursery"],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"

    def run(
        self,
        call: str,
        log: Path,
        kill_after: float | None = None,
        environment: dict[str, str] | None = None,
        **arguments: Any,
    ) -> int:
        """Exit code of `jobs.<call>(**arguments)`, minus the number of the signal if one has killed it."""
        job = {
            "call": call,
            "log": str(log),
            "kill_after": kill_after,
            "environment": environment or {},
            "arguments": arguments,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._answer())

    def close(self) -> None:
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    found = Nursery()
    yield found
    found.close()


def metrics_of(run: Path) -> dict[str, Any]:
    """The content of metrics.json without times and memory."""
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return {name: value for name, value in metrics.items() if name not in TIMES}


def final_state(run: Path) -> dict[str, Any]:
    """The newest checkpoint without times and memory."""
    state = read_checkpoint(checkpoints_in(run)[-1])
    record = {name: value for name, value in state["record"].items() if name not in (*TIMES, STOPS)}
    record["stages"] = [
        {name: value for name, value in stage.items() if name != "seconds"} for stage in record["stages"]
    ]
    return {**state, "record": record}


def assert_same_end(found: Path, expected: Path) -> None:
    """Two runs ended in the same numbers, bit for bit."""
    assert metrics_of(found) == metrics_of(expected)
    states = final_state(found), final_state(expected)
    assert states[0]["system"].keys() == states[1]["system"].keys()
    for name, tensor in states[1]["system"].items():
        assert torch.equal(states[0]["system"][name], tensor), name
    for name in ("record", "stage", "stages_done", "fingerprints"):
        # In words, since NaN, where a block asks nobody, is unequal to itself.
        assert repr(states[0][name]) == repr(states[1][name]), name
    names = [{path.name for path in (run / "checkpoints").iterdir()} for run in (found, expected)]
    assert names[0] == names[1]


def numbers_in(content: Any, place: str = "") -> dict[str, float]:
    """Every number of nested content by its place."""
    if isinstance(content, dict):
        parts = content.items()
    elif isinstance(content, list):
        parts = enumerate(content)
    else:
        return {} if content is None or isinstance(content, str) else {place: float(content)}
    return {name: value for key, part in parts for name, value in numbers_in(part, f"{place}/{key}").items()}


def small_fit(folder: Path, *more: str, epochs: int = 3) -> list[str]:
    """Arguments of a short `fit` of the simulated stream, with replay from all sources, into a folder."""
    kinds = ("base", "first_distillation", "student_update", "teacher_update", "distillation")
    return [
        *("fit", "--config", str(ROOT / "configs" / "ccd.yaml"), "--config", str(PROXY_REPLAY)),
        *("--trainer.default_root_dir", str(folder)),
        *("--data.source.users=150", "--data.source.items=100", "--data.source.interactions=3500"),
        *("--data.source.blocks=2", "--trainer.accelerator=cpu", "--report.figures=false"),
        "--model.ks=[5,20]",
        *(f"--trainer.plan.{kind}.max_epochs={epochs}" for kind in kinds),
        *more,
    ]


def sabotage(**point: Any) -> list[str]:
    """Arguments that put a `Saboteur` into a run."""
    return [
        "--trainer.callbacks.class_path=tests.reliability.saboteur.Saboteur",
        *(f"--trainer.callbacks.init_args.{name}={value}" for name, value in point.items()),
    ]
