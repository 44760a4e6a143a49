"""What becomes of a run whose processes are not all alive any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.trainer.states import TrainerStatus

GRACE = 3.0
"""Seconds in which the main process may end by itself, after one that it started has died."""

GO_ON = "What was saved is whole: go on with `--ckpt_path last`."


class ProcessLostError(RuntimeError):
    """Another process of the run is gone.

    Args:
        message: what happened and what to do.
        told: whether the user has read the message already.
    """

    def __init__(self, message: str, told: bool = False) -> None:
        super().__init__(message)
        self.told = told


class ChildWatch:
    """Waits for the processes that Lightning's launcher has started, and speaks up at once if one of them dies.

    The main process can sit in a collective that never ends, or be killed by Lightning without a word.

    Args:
        processes: gives those that were started so far.
    """

    def __init__(self, processes: Callable[[], list[subprocess.Popen[bytes]]]) -> None:
        self._processes = processes
        self._death: str | None = None
        self._seen = threading.Event()
        self._ended = threading.Event()
        self._starting = threading.Thread(target=self._await_start, daemon=True)

    def start(self) -> None:
        """Begin to wait, before the processes are started."""
        self._starting.start()

    def end(self) -> None:
        """Wait no longer for processes to be started; those that were are watched for as long as they live."""
        self._ended.set()
        self._starting.join()

    def death(self, seconds: float = 1.0) -> str | None:
        """What was told about a process that a signal has killed, if there is one."""
        self._seen.wait(seconds if self._processes() else 0.0)
        return self._death

    def _await_start(self) -> None:
        while not self._processes() and not self._ended.wait(0.2):
            pass
        for rank, process in enumerate(self._processes(), start=1):
            threading.Thread(target=self._await_end, args=(rank, process), daemon=True).start()

    def _await_end(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        if code == 0:
            return
        if code < 0:
            name = signal.Signals(-code).name
            self._death = f"Process {rank} (PID {process.pid}) was killed by {name}; the others stop with it. {GO_ON}"
            print(f"error: {self._death}", file=sys.stderr, flush=True)
            self._seen.set()
        # A process that ends with an exit code has given its reason itself.
        time.sleep(GRACE)
        for other in self._processes():
            other.kill()
        os._exit(max(code, 1))


def check_strategy(strategy: Strategy) -> None:
    """Refuse launchers whose processes begin as copies, and strategies that write a folder where a checkpoint is one file.

    Raises:
        MisconfigurationException: if the strategy spawns or forks, or saves its shards apart.
    """
    if getattr(strategy, "_start_method", "popen") != "popen":
        raise MisconfigurationException(
            "The strategy starts its processes by spawn or fork, and what callbacks keep between stages would stay in the"
            " children: use `--trainer.strategy ddp` instead."
        )
    if getattr(strategy, "_save_distributed_checkpoint", False):
        raise MisconfigurationException(
            f"{type(strategy).__name__} writes checkpoints as a folder of shards, but a stream checkpoint is one file: give it"
            " `save_distributed_checkpoint: false`."
        )


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error of a collective says that another process is gone."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def last_words(output: Path, code: int, since: int = 0) -> str:
    """What a process of a run said at last, and how it ended.

    Args:
        output: what it printed, and others before it.
        code: its exit code, or minus the number of the signal that has killed it.
        since: where its own output begins, in bytes.
    """
    if code < 0:
        return f"killed by {signal.Signals(-code).name}; its output is in {output}"
    with output.open("rb") as file:
        file.seek(since)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("error:")] or lines or ["no word"]
    return f"{told[-1].removeprefix('error: ')} (exit code {code}; its output is in {output})"


@contextmanager
def surviving(trainer: Trainer, model: LightningModule) -> Iterator[None]:
    """Watch over the processes of a run, and let every error reach the callbacks.

    Raises:
        ProcessLostError: in place of an error that says that another process is gone.
    """
    children = _child_watch(trainer.strategy.launcher)
    try:
        yield
    except BaseException as error:
        if trainer.state.status is not TrainerStatus.INTERRUPTED:
            # Lightning tells of errors within a fit or a test alone.
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                callback.on_exception(trainer, model, error)
        if not is_lost_connection(error):
            raise
        death = children.death() if children else None
        raise ProcessLostError(death or f"Another process of the run is gone. {GO_ON}", bool(death)) from error
    finally:
        if children:
            children.end()


def _child_watch(launcher: Any) -> ChildWatch | None:
    """A watch that has begun, where the strategy's launcher starts processes; there is none for a process of its own.

    It holds the launcher alone, since the Trainer would keep models and data alive for as long as the processes are.
    """
    if not hasattr(launcher, "procs"):
        return None
    children = ChildWatch(lambda: launcher.procs)
    children.start()
    return children
