"""Several processes: they agree with one, take over from it, and none is left waiting for a dead one."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch

from ccd_lightning.checkpoint import unfinished_in
from ccd_lightning.cli import main

from .conftest import ENVIRONMENT, PROXY_REPLAY, ROOT, Nursery, final_state, metrics_of, numbers_in, sabotage, small_fit

TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")
KILLED = -signal.SIGKILL
STRUCK = "block2-teacher_update-0"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks of many users, of a single one, and of many with new ones."""
    dice = random.Random(0)
    rows = []
    for block, users in enumerate((range(60), [7], range(45, 72))):
        for user in users:
            # Items that nobody trains on would all score the same, and rounding would order them.
            items = dice.sample(range(40 + 5 * (block // 2)), 9)
            splits = ["valid", "test", *["train"] * 7] if len(users) > 1 else ["valid", "test", "train"]
            rows += [(user, item, block, split) for item, split in zip(items, splits, strict=False)]
    path = tmp_path_factory.mktemp("table") / "blocks.parquet"
    pl.DataFrame(rows, schema=["user", "item", "block", "split"], orient="row").write_parquet(path)
    return path


TEACHERS = """
model:
  teachers:
    - class_path: ccd_lightning.modules.Teacher
      init_args: {backbone: {class_path: ccd_lightning.backbones.LightGCN, init_args: {dim: 8}}}
    - class_path: ccd_lightning.modules.Teacher
      init_args: {backbone: {class_path: ccd_lightning.backbones.BPRMF, init_args: {dim: 8}}, clusters: 3}
    - class_path: ccd_lightning.modules.Teacher
      init_args: {backbone: {class_path: ccd_lightning.backbones.MultVAE, init_args: {dim: 8}}}
"""


def fit(folder: Path, table: Path, *more: str) -> list[str]:
    """Arguments of a run whose last batches are uneven, and in which the smallest block has one row.

    In double precision, since the rounding of single precision turns the order of nearly equal scores, and with it what is
    replayed.
    """
    sizes = {"base": 101, "first_distillation": 53, "student_update": 33, "teacher_update": 47, "distillation": 29}
    data = ("--data.source.class_path=ccd_lightning.data.BlockTable", f"--data.source.init_args.path={table}")
    arguments = [argument for argument in small_fit(folder, epochs=2) if not argument.startswith("--data.")]
    teachers = table.with_name("teachers.yaml")
    teachers.write_text(TEACHERS)
    return [
        *arguments,
        *data,
        *("--config", str(teachers), "--trainer.precision=64-true", "--data.evaluation_batch=16"),
        *("--distillation.graph.weight=1", "--distillation.graph.sample=20", "--distillation.generation.sample=20"),
        "--checkpoint.every_seconds=0",
        *(f"--trainer.plan.{kind}.batch_size={size}" for kind, size in sizes.items()),
        *more,
    ]


def run_two(log: Path, arguments: list[str]) -> int:
    """The command with two processes."""
    with log.open("w") as file:
        command = [sys.executable, "train.py", *arguments, *TWO]
        return subprocess.run(
            command, cwd=ROOT, env=ENVIRONMENT, stdout=file, stderr=file, timeout=240, check=False
        ).returncode


@pytest.fixture(scope="module")
def alone(nursery: Nursery, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    log = folder.with_name("log")
    assert nursery.run("command", log, arguments=fit(folder, table)) == 0, log.read_text()
    return folder


def assert_metrics_agree(found: Path, expected: Path) -> None:
    """Every metric of two runs agrees to 1e-4."""
    numbers, wanted = numbers_in(metrics_of(found)), numbers_in(metrics_of(expected))
    assert len(wanted) > 200
    assert numbers.keys() == wanted.keys()
    assert not {name: (numbers[name], value) for name, value in wanted.items() if abs(numbers[name] - value) > 1e-4}


def assert_agree(found: Path, expected: Path) -> None:
    """Every metric of two runs agrees to 1e-4, and every parameter to 1e-6."""
    assert_metrics_agree(found, expected)
    for name, tensor in final_state(expected)["system"].items():
        torch.testing.assert_close(final_state(found)["system"][name], tensor, rtol=0, atol=1e-6)


def test_two_processes_agree_with_one(tmp_path: Path, table: Path, alone: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    assert run_two(log, fit(run, table)) == 0, log.read_text()
    assert_agree(run, alone)


LEARNING_WELL = (
    *(f"--trainer.plan.{kind}.max_epochs=8" for kind in ("base", "student_update")),
    *(f"--trainer.plan.{kind}.learning_rate=0.03" for kind in ("base", "first_distillation", "student_update")),
)
"""So that scores lie further apart than rounding moves them."""

UNEVEN = (
    "--config",
    str(ROOT / "configs" / "ccd.yaml"),
    "--config",
    str(PROXY_REPLAY),
    *("--data.source.users=100", "--data.source.items=80", "--data.source.interactions=1700", "--data.source.blocks=3"),
    *("--model.ks=[5,20]", "--trainer.accelerator=cpu", "--report.figures=false", "--trainer.plan.base.max_epochs=10"),
    *("--trainer.plan.base.batch_size=101", "--trainer.plan.first_distillation.batch_size=53"),
    *("--trainer.plan.student_update.batch_size=33", "--trainer.plan.teacher_update.batch_size=47"),
    "--trainer.plan.distillation.batch_size=29",
)
"""The whole collaboration, with replay from all sources, on three blocks; epochs and steps are those of the configuration."""


def models_of(folder: Path, backbone: str) -> tuple[str, str]:
    """Arguments that give student and teachers the same backbone."""
    student, teacher = (
        f"{{class_path: ccd_lightning.modules.{kind}, init_args: {{backbone: {{class_path:"
        f" ccd_lightning.backbones.{backbone}, init_args: {{dim: {dim}}}}}}}}}"
        for kind, dim in (("Student", 8), ("Teacher", 16))
    )
    path = folder / "models.yaml"
    path.write_text(f"model: {{student: {student}, teachers: [{teacher}, {teacher}]}}")
    return "--config", str(path)


def check_single_precision(nursery: Nursery, folder: Path, arguments: list[str]) -> None:
    """One process and two agree on every metric."""
    log, one, two = folder / "log", folder / "one", folder / "two"
    assert nursery.run("command", log, arguments=[*arguments, f"--trainer.default_root_dir={one}"]) == 0, (
        log.read_text()
    )
    assert run_two(log, [*arguments, f"--trainer.default_root_dir={two}"]) == 0, log.read_text()
    assert_metrics_agree(two, one)


@pytest.mark.parametrize("backbone", ["BPRMF", "LightGCN"])
def test_two_processes_fine_tune_as_one_in_single_precision(
    nursery: Nursery, tmp_path: Path, table: Path, backbone: str
) -> None:
    overlay = ("--config", str(ROOT / "configs" / "fine_tuning.yaml"), "--trainer.precision=32-true")
    arguments = fit(tmp_path / "one", table, *models_of(tmp_path, backbone), *overlay, *LEARNING_WELL)
    check_single_precision(nursery, tmp_path, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["BPRMF", "LightGCN"])
def test_two_processes_collaborate_as_one_in_single_precision(nursery: Nursery, tmp_path: Path, backbone: str) -> None:
    check_single_precision(nursery, tmp_path, ["fit", *UNEVEN, *models_of(tmp_path, backbone)])


def test_two_processes_go_on_where_one_was_killed_and_one_where_two_were_stopped(
    nursery: Nursery, tmp_path: Path, table: Path, alone: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    strike = sabotage(stage=STRUCK, point="validation_end", count=1)
    assert nursery.run("command", log, arguments=[*fit(run, table), *strike]) == KILLED, log.read_text()
    assert [path.name for path in unfinished_in(run)] == ["00011-block2-teacher_update-0.part"]
    # A signal to any of the processes stops all of them.
    strike = sabotage(stage="block2-teacher_update-1", point="batch", count=1, signal_name="SIGTERM", rank=1)
    assert run_two(log, [*fit(run, table), "--ckpt_path=last", *strike]) == 128 + signal.SIGTERM, log.read_text()
    assert "SIGTERM: all that is done is saved" in log.read_text()
    assert [path.name for path in unfinished_in(run)] == ["00012-block2-teacher_update-1.part"]
    assert nursery.run("command", log, arguments=[*fit(run, table), "--ckpt_path=last"]) == 0, log.read_text()
    assert_agree(run, alone)


def check_lost(log: Path, run: Path, message: str) -> None:
    """One message, no traceback, and an end soon after the process had died, which was an epoch after the last save."""
    assert time.time() - max(path.stat().st_mtime for path in (run / "checkpoints").iterdir()) < 60
    text = log.read_text()
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, text
    assert message in errors[0]
    assert "go on with `--ckpt_path last`" in errors[0]
    assert "Traceback" not in text


def test_death_of_a_process_ends_the_run_with_a_message_and_one_process_goes_on(
    nursery: Nursery, tmp_path: Path, table: Path, alone: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    strike = sabotage(stage=STRUCK, point="validation_end", count=1, rank=1)
    assert run_two(log, [*fit(run, table), *strike]) not in (0, 128 + signal.SIGTERM)
    check_lost(log, run, "was killed by SIGKILL; the others stop with it.")
    strike = sabotage(stage="block2-teacher_update-1", point="batch", count=2, rank=0)
    assert run_two(log, [*fit(run, table), "--ckpt_path=last", *strike]) == KILLED
    wait_for(lambda: "error: " in log.read_text())
    check_lost(log, run, "Another process of the run is gone.")
    assert nursery.run("command", log, arguments=[*fit(run, table), "--ckpt_path=last"]) == 0, log.read_text()
    assert_agree(run, alone)


def wait_for(condition: Callable[[], bool], seconds: float = 50.0) -> None:
    """The main process is dead, but the other one may still be about to end."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.1)


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_spawned_processes_are_refused(
    tmp_path: Path, table: Path, strategy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main([*fit(tmp_path / "run", table), "--trainer.devices=2", f"--trainer.strategy={strategy}"])
    assert error.value.code == 2
    assert "starts its processes by spawn or fork" in capsys.readouterr().err
