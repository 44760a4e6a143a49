"""Signals that ask a stream to stop: the present epoch is finished and saved, then the process exits."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning_utilities.core.rank_zero import rank_zero_warn
from typing_extensions import override


class StreamSignals(_SignalConnector):
    """Notes the signals that ask a stream to stop; outside a stream it is Lightning's own connector.

    Lightning's handlers would stop in the middle of an epoch, speak to the other processes from within a handler and,
    under SLURM, save a checkpoint of the single stage and load it again at the next one.

    Args:
        trainer: whose processes decide together.
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer)
        self._asked: set[int] = set()
        self._before: dict[int, Any] = {}

    @property
    def requeue_signal(self) -> int | None:
        """The signal by which SLURM asks to be requeued; ``None`` elsewhere, or if that is switched off."""
        environment = self.trainer._accelerator_connector.cluster_environment
        if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
            return None
        return environment.requeue_signal

    def watch(self) -> None:
        """Take over: from now on signals are noted alone."""
        if threading.current_thread() is threading.main_thread() and not self._before:
            self._asked.clear()
            for number in self._watched():
                self._before[number] = signal.signal(number, self._note)

    def release(self) -> None:
        """Give back the handlers that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def agreed(self) -> signal.Signals | None:
        """What any of the processes was asked, the same answer in all of them; requeueing comes first."""
        for number in self._watched():
            if self.trainer.strategy.reduce_boolean_decision(number in self._asked, all=False):
                return signal.Signals(number)
        return None

    @override
    def register_signal_handlers(self) -> None:
        if not self._before:
            super().register_signal_handlers()

    @override
    def teardown(self) -> None:
        if not self._before:
            super().teardown()

    def _watched(self) -> list[int]:
        return [number for number in (self.requeue_signal, signal.SIGTERM) if number is not None]

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._asked.add(signum)


def was_requeued() -> bool:
    """Whether SLURM has started this job before: the same command then means to go on."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0


def requeue_job() -> None:
    """Ask SLURM to put the present job, or task of an array, back into its queue."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
    try:
        code = subprocess.run(["scontrol", "requeue", job], check=False).returncode
    except OSError as error:
        rank_zero_warn(f"SLURM job {job} could not be requeued ({error}): submit it again, with `--ckpt_path last`.")
        return
    if code:
        rank_zero_warn(f"`scontrol requeue {job}` ended with {code}: submit the job again, with `--ckpt_path last`.")
