"""A trial of a W&B sweep as an agent runs it, without the server that would draw the settings."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweeps import next_run
from wandb.wandb_agent import Agent

from ccd_lightning.cli import main
from tests.helpers import CONFIGS, short_simulated_fit
from tests.tracking.offline import OfflineRun, end_run

ROOT = CONFIGS.parent


def run_as_agent(settings: dict[str, Any], command: list[str], trial: str) -> int:
    """What W&B's agent does with an order of its server, by its own code."""
    agent = Agent.__new__(Agent)
    agent._sweep_command, agent._function, agent._in_jupyter, agent._forward_signals = command, None, False, False
    agent._run_processes = {}
    agent._command_run({"run_id": trial, "program": "train.py", "args": settings})
    return int(agent._run_processes[trial].wait())


@pytest.mark.slow
def test_a_trial_of_the_shipped_sweep_logs_its_objective(
    tmp_path: Path, offline: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train.py", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    monkeypatch.setenv("WANDB_RUN_ID", "")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", "")
    sweep = yaml.safe_load((CONFIGS / "sweep.yaml").read_text())
    drawn = json.loads(json.dumps(next_run(sweep, []).config, default=lambda number: number.item()))
    cut = short_simulated_fit("ccd", tmp_path, blocks=2)
    small = cut[cut.index("--config") + 2 : cut.index("--trainer.default_root_dir")]
    assert run_as_agent(drawn, [*sweep["command"], *small], "one") == 0

    folder = tmp_path / "runs" / "sweep-abc" / "one"
    run = OfflineRun(next((folder / "wandb").glob("offline-run-*")))
    student = json.loads((folder / "metrics.json").read_text())["student"]["recall@20"]["H"]
    assert (run.id, run.sweep_id) == ("one", "abc")
    assert run.summary[sweep["metric"]["name"]] == pytest.approx(student[-1])
    assert run.column(sweep["metric"]["name"]) == pytest.approx(student)
    learned = yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["plan"]["student_update"]["learning_rate"]
    assert learned == drawn["trainer.plan.student_update.learning_rate"]["value"]

    # The agent starts a trial again that was taken off its machine: it goes on, in W&B too.
    main(["fit", *sweep["command"][4:6], *small])
    end_run()
    assert {OfflineRun(path).id for path in (folder / "wandb").glob("offline-run-*")} == {"one"}
    assert len(list((folder / "wandb").glob("offline-run-*"))) == 2
