"""Whoever asks a run to stop gets a run that can go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ccd_lightning.checkpoint import checkpoints_in, unfinished_in
from ccd_lightning.signals import requeue_job, was_requeued
from ccd_lightning.trainer import StreamTrainer

from ..stream.conftest import RunStream, run_stream, small_source
from .conftest import ENVIRONMENT, ROOT, Nursery, assert_same_end, sabotage, small_fit

__all__ = ["run_stream"]

TERMINATED, REQUEUED = 128 + signal.SIGTERM, 128 + signal.SIGUSR1


@pytest.fixture(scope="module")
def unbroken_command(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the command line that was never stopped."""
    folder = tmp_path_factory.mktemp("unbroken_command") / "run"
    log = folder.with_name("log")
    assert nursery.run("command", log, arguments=small_fit(folder)) == 0, log.read_text()
    return folder


def check_log(log: Path, name: str) -> None:
    """One message, which says what to do."""
    text = log.read_text()
    assert f"{name}: all that is done is saved in" in text
    assert "go on with `--ckpt_path last`" in text
    assert "Traceback" not in text


def test_sigterm_at_any_time_saves_what_is_done(nursery: Nursery, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert nursery.run("learn_stream", tmp_path / "log", folder=str(whole)) == 0
    # Stage, point, which time, the file to go on from.
    times = [
        ("block0-base-0", "batch", 1, "00001-block0-base-0.part"),
        ("block0-base-1", "stage_start", 1, "00001-block0-base-0.ckpt"),
        ("block0-base-2", "train_start", 1, "00003-block0-base-2.part"),
        ("block0-distillation", "test", 1, "00004-block0-distillation.ckpt"),
        ("block1-student_update", "validation_end", 2, "00005-block1-student_update.part"),
        ("block1-student_update", "batch", 1, "00005-block1-student_update.ckpt"),
        ("block1-teacher_update-0", "stage_end", 1, "00006-block1-teacher_update-0.ckpt"),
        ("block1-distillation", "block_end", 1, "00009-block1-distillation.ckpt"),
        ("block2-student_update", "epoch_end", 3, "00010-block2-student_update.ckpt"),
    ]
    for number, (stage, point, count, newest) in enumerate(times):
        log = tmp_path / f"log{number}"
        strike = {"stage": stage, "point": point, "count": count, "signal_name": "SIGTERM"}
        code = nursery.run("learn_stream", log, folder=str(run), resume=number > 0, point=strike)
        assert code == TERMINATED, f"{strike}: {code}\n{log.read_text()}"
        check_log(log, "SIGTERM")
        assert [*checkpoints_in(run), *unfinished_in(run)][-1].name == newest, strike
    assert nursery.run("learn_stream", tmp_path / "log", folder=str(run), resume=True) == 0
    assert_same_end(run, whole)


def test_sigterm_to_the_command_ends_without_a_traceback_and_last_goes_on(
    nursery: Nursery, tmp_path: Path, unbroken_command: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "train.py", *small_fit(run)], cwd=ROOT, env=ENVIRONMENT, stdout=file, stderr=file
        )
        while process.poll() is None and not checkpoints_in(run):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == TERMINATED, log.read_text()
    check_log(log, "SIGTERM")
    assert nursery.run("command", log, arguments=[*small_fit(run), "--ckpt_path=last"]) == 0, log.read_text()
    assert_same_end(run, unbroken_command)


def slurm(folder: Path, exit_code: int = 0) -> dict[str, str]:
    """The environment of a SLURM task whose `scontrol` notes what it is told."""
    command = folder / "bin" / "scontrol"
    command.parent.mkdir(exist_ok=True)
    command.write_text(f'#!/bin/sh\necho "$@" >> {folder}/scontrol\nexit {exit_code}\n')
    command.chmod(0o755)
    task = {"JOB_ID": "1234", "JOB_NAME": "train", "NTASKS": "1", "NTASKS_PER_NODE": "1", "NNODES": "1"}
    place = {"PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    return {
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        **{f"SLURM_{key}": value for key, value in (task | place).items()},
    }


def test_slurm_job_is_requeued_and_the_same_command_goes_on(
    nursery: Nursery, tmp_path: Path, unbroken_command: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    # In the second of three epochs of one batch; after a resumption only one more comes.
    strike = sabotage(stage="block0-base-1", point="batch", count=2, signal_name="SIGUSR1")
    job: dict[str, Any] = {"arguments": [*small_fit(run), *strike], "environment": slurm(tmp_path)}
    assert nursery.run("command", log, **job) == REQUEUED, log.read_text()
    check_log(log, "SIGUSR1")
    assert (tmp_path / "scontrol").read_text() == "requeue 1234\n"
    assert [path.name for path in unfinished_in(run)] == ["00002-block0-base-1.part"]
    assert not list(run.rglob("hpc_ckpt*"))
    job["environment"]["SLURM_RESTART_COUNT"] = "1"
    assert nursery.run("command", log, **job) == 0, log.read_text()
    assert_same_end(run, unbroken_command)


@pytest.mark.parametrize("told", [False, True])
def test_sigterm_under_slurm_stops_without_requeueing(nursery: Nursery, tmp_path: Path, told: bool) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    strike = {"stage": "block0-base-0", "point": "batch", "signal_name": "SIGUSR1" if told else "SIGTERM"}
    code = nursery.run("learn_stream", log, folder=str(run), point=strike, environment=slurm(tmp_path))
    assert code == (REQUEUED if told else TERMINATED), log.read_text()
    assert (tmp_path / "scontrol").exists() is told


def set_environment(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_task_of_a_slurm_array_is_requeued_by_its_own_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, slurm(tmp_path) | {"SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "3"})
    requeue_job()
    assert (tmp_path / "scontrol").read_text() == "requeue 77_3\n"


def test_failing_requeue_says_to_submit_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, slurm(tmp_path, exit_code=1))
    with pytest.warns(UserWarning, match="ended with 1: submit the job again, with `--ckpt_path last`"):
        requeue_job()
    (tmp_path / "bin" / "scontrol").unlink()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.warns(UserWarning, match="SLURM job 1234 could not be requeued .*submit it again"):
        requeue_job()


@pytest.mark.parametrize(("count", "expected"), [(None, False), ("", False), ("0", False), ("2", True)])
def test_restart_count_tells_a_requeued_job(monkeypatch: pytest.MonkeyPatch, count: str | None, expected: bool) -> None:
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    if count is not None:
        monkeypatch.setenv("SLURM_RESTART_COUNT", count)
    assert was_requeued() is expected


def test_checkpoints_of_lightning_under_slurm_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_stream: RunStream
) -> None:
    set_environment(monkeypatch, slurm(tmp_path))
    (tmp_path / "hpc_ckpt_1.ckpt").touch()
    with pytest.raises(
        MisconfigurationException, match=r"hpc_ckpt_1.ckpt is a checkpoint that Lightning saved .*move it"
    ):
        run_stream(tmp_path)


def test_handlers_are_given_back_at_the_end_and_after_an_error(tmp_path: Path, run_stream: RunStream) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run_stream(tmp_path / "whole", source=small_source(blocks=1), max_epochs=1)
    assert signal.getsignal(signal.SIGTERM) is before

    class Watcher(StreamTrainer):
        def _learn_stage(self, *arguments: Any) -> None:
            assert signal.getsignal(signal.SIGTERM) == self.signals._note
            raise RuntimeError("between two fits")

    trainer = Watcher(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path / "cut")
    from ccd_lightning.callbacks import StreamCheckpoint
    from ccd_lightning.data import ContinualDataModule

    from ..stream.conftest import small_system

    trainer.callbacks.append(StreamCheckpoint())
    with pytest.raises(RuntimeError, match="between two fits"):
        trainer.fit(small_system(), datamodule=ContinualDataModule(small_source(blocks=1)))
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_modules_keep_the_handlers_of_lightning(tmp_path: Path) -> None:
    class Plain(LightningModule):
        seen: Any = None

        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.seen = signal.getsignal(signal.SIGTERM)

        def configure_optimizers(self) -> None:
            return None

    module = Plain()
    trainer = StreamTrainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path, max_epochs=1
    )
    trainer.fit(module, train_dataloaders=[0])
    assert type(module.seen).__name__ == "_HandlersCompose"
