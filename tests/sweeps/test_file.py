from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from sweeps import next_run
from sweeps.config import schema_violations_from_proposed_config
from sweeps.hyperband_stopping import hyperband_stop_runs
from sweeps.run import RunState, SweepRun

from ccd_lightning.sweeps.file import read_sweep

SHIPPED = Path(__file__).resolve().parents[2] / "configs" / "sweep.yaml"
SMALL = {
    "method": "random",
    "metric": {"name": "stream/student/H", "goal": "maximize"},
    "parameters": {"a": {"value": 1}},
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}))
    return path


def test_the_shipped_sweep_keeps_the_schema_of_wandb() -> None:
    assert schema_violations_from_proposed_config(yaml.safe_load(SHIPPED.read_text())) == []


def test_the_shipped_sweep_says_what_counts() -> None:
    sweep = read_sweep(SHIPPED)
    assert (sweep.objective, sweep.goal, sweep.method) == ("stream/student/H", "maximize", "bayes")
    assert sweep.early_terminate == {"type": "hyperband", "min_iter": 2, "eta": 2}


def test_values_of_wandb_become_the_command_line() -> None:
    content = yaml.safe_load(SHIPPED.read_text())
    found = next_run(content, []).config
    # What travels from W&B's server to an agent is JSON.
    drawn = json.loads(json.dumps({name: found[name]["value"] for name in found}, default=lambda number: number.item()))
    arguments = read_sweep(SHIPPED).arguments(drawn)
    assert arguments[:3] == [sys.executable, "train.py", "fit"]
    assert arguments[5:] == [f"--{name}={value}" for name, value in drawn.items()]


def test_without_a_command_the_program_gets_the_parameters(tmp_path: Path) -> None:
    assert read_sweep(written(tmp_path)).arguments({"a": 1}) == [sys.executable, "train.py", "--a=1"]
    assert read_sweep(written(tmp_path)).name == "mine"
    assert read_sweep(written(tmp_path, name="other", run_cap=7)).run_cap == 7


def test_max_iter_trims_first_where_wandb_does(tmp_path: Path) -> None:
    stopping = {"type": "hyperband", "max_iter": 12, "s": 2, "eta": 2}
    found = read_sweep(written(tmp_path, early_terminate=stopping)).early_terminate["min_iter"]
    content = {**SMALL, "early_terminate": stopping}

    def are_stopped(length: int) -> bool:
        best, bad = SweepRun(name="best", state=RunState.finished), SweepRun(name="bad", state=RunState.running)
        best.history = [{"stream/student/H": 1.0}] * 20
        bad.history = [{"stream/student/H": 0.1}] * length
        return bool(hyperband_stop_runs([best, best, bad], content))

    # The value after block k is the (k + 1)-th of a history.
    assert are_stopped(found + 1) and not are_stopped(found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methd": 1}, "has `methd`, but expected are .*method"),
        ({"method": "guess"}, "method: guess.*random, grid, bayes"),
        ({"metric": {"name": "loss", "goal": "maximize"}}, "metric 'loss'.*stream/student/H"),
        ({"metric": {"name": "stream/student/H", "goal": "up"}}, "goal: up"),
        ({"metric": 5}, "`metric: 5`.*mapping"),
        ({"parameters": {}}, "no `parameters`"),
        ({"early_terminate": {"type": "luck"}}, "early_terminate.type: luck"),
        ({"early_terminate": {"type": "hyperband"}}, "no `early_terminate.min_iter`"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 1}}, "the `eta` 1"),
        ({"run_cap": 0}, "run_cap: 0"),
    ],
)
def test_mistakes_in_a_sweep_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        read_sweep(written(tmp_path, **changes))


def test_files_that_are_no_sweep_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="does not exist"):
        read_sweep(tmp_path / "nowhere.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(MisconfigurationException, match="cannot be read"):
        read_sweep(broken)
    broken.write_text("- a")
    with pytest.raises(MisconfigurationException, match="no mapping"):
        read_sweep(broken)
