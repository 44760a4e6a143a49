"""One trial: a process of its own in a folder of its own, watched from outside, so that nothing it does ends the sweep."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import OmegaConf

from ccd_lightning.checkpoint import has_saved
from ccd_lightning.processes import last_words
from ccd_lightning.reporting import pick_metric

POLL = 0.5
"""Seconds between two looks at a trial's metrics."""

PATIENCE = 120.0
"""Seconds that a trial has to finish its epoch and save, once it is told to stop."""

OUTPUT = "output.txt"
"""What a trial prints, in its folder."""

CONFIG = "config.yaml"
"""Where a trial keeps its configuration, in its folder."""

USER_ERROR = 2
"""Exit code of a trial whose input or settings are wrong, as of every command."""


class TrialFailedError(RuntimeError):
    """A trial has ended without a value."""


class TrialRefusedError(ValueError):
    """A mistake in the input or the settings, at which the trials to come would end as well."""


def run_trial(
    arguments: Sequence[str], folder: Path, role: str, average: str, is_hopeless: Callable[[int, float], bool]
) -> float | None:
    """Run a trial, or go on with it where its folder holds a stream already.

    Args:
        arguments: its command line, without the folder.
        folder: where it writes.
        role: whose average counts.
        average: which one.
        is_hopeless: told of each block and its value, says whether to stop there.

    Returns:
        The value after the last block, or ``None`` if the trial was stopped as hopeless.

    Raises:
        TrialFailedError: with the trial's own last words.
        TrialRefusedError: with them too, if they tell of a mistake in the input: if the trial ended with that code before it kept
            its configuration, which it does once data and settings fit. Later it may have diverged, or found the disk full.
    """
    told = 0
    with (
        alone_in(folder) as lock,
        (folder / OUTPUT).open("ab") as output,
        _process(arguments, folder, lock, output.fileno()) as process,
    ):
        said_before = output.tell()
        is_running = True
        while is_running:
            is_running = not _has_ended(process)
            for value in _curve(folder, role, average)[told:]:
                if is_hopeless(told, value) and is_running:
                    return None
                told += 1
    words = last_words(folder / OUTPUT, process.returncode, said_before)
    if process.returncode == USER_ERROR and not (folder / CONFIG).is_file():
        raise TrialRefusedError(
            f"{folder.name} is refused: {words}. Mend it, and the same command goes on; a changed sweep needs another `name`."
        )
    if process.returncode:
        raise TrialFailedError(words)
    if not told:
        raise TrialFailedError(f"it ended well, but {folder / 'metrics.json'} holds no {average} of the {role}")
    return _curve(folder, role, average)[-1]


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(POLL)
    except subprocess.TimeoutExpired:
        return False
    return True


@contextmanager
def _process(arguments: Sequence[str], folder: Path, lock: int, output: int) -> Iterator[subprocess.Popen[bytes]]:
    """The trial's process; whoever leaves early stops it, and what it has done is saved."""
    place = [f"--trainer.default_root_dir={folder}", *(["--ckpt_path=last"] if has_saved(folder) else [])]
    process = subprocess.Popen(
        [*arguments, *place],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        # Without an account, W&B would ask for one.
        env={"WANDB_MODE": "disabled", **os.environ},
        pass_fds=(lock,),
        # Ctrl-C in the terminal is for the sweep, which asks the trial to save.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def alone_in(folder: Path) -> Iterator[int]:
    """Hold the lock of a folder, once whoever holds it has let go.

    A trial's process inherits it, so that one that outlives its sweep is waited for.

    Args:
        folder: made if it is missing.

    Yields:
        The descriptor of the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _curve(folder: Path, role: str, average: str) -> list[float]:
    """The average after every block so far, of the metric that the trial reports."""
    metrics, config = folder / "metrics.json", folder / CONFIG
    if not metrics.is_file() or not config.is_file():
        return []
    summary = json.loads(metrics.read_text())
    metric = pick_metric(summary, OmegaConf.load(config).report.metric)
    values: list[float | None] = summary[role].get(metric, {}).get(average, [])
    # As long as no block has asked anybody there is no average.
    return [value for value in values if value is not None]
