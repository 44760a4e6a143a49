"""Seconds and memory of one phase of a process."""

from __future__ import annotations

import logging
import platform
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ccd_lightning.record import peak_resident_bytes

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Phase:
    """What one phase took.

    Args:
        name: what was done.
        unit: what the work is counted in.
        amount: how many of them.
        cpu_seconds: of all the process's threads.
        wall_seconds: by the clock.
        peak_bytes: largest resident size during the phase; where the system cannot tell, since the process began.
    """

    name: str
    unit: str
    amount: int
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_bytes: int = 0


class Clock:
    """Collects the phases of a process."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self.bytes_on_disk: dict[str, int] = {}

    @contextmanager
    def phase(self, name: str, unit: str, amount: int = 0) -> Iterator[Phase]:
        """Measure what happens in the context; the amount may be set within it."""
        found = Phase(name, unit, amount)
        forget_peak()
        cpu, wall = time.process_time(), time.perf_counter()
        yield found
        found.cpu_seconds, found.wall_seconds = time.process_time() - cpu, time.perf_counter() - wall
        found.peak_bytes = peak_bytes()
        self.phases.append(found)

    def as_rows(self) -> list[dict[str, Any]]:
        """The phases as plain values."""
        return [asdict(phase) for phase in self.phases]


def quiet_lightning() -> None:
    """Let neither warnings nor what Lightning says of every fit come between the cases."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def forget_peak() -> None:
    """Let the largest resident size be counted anew, where the system can do that."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")


def peak_bytes() -> int:
    """Largest resident size since :func:`forget_peak`; elsewhere than on Linux, since the process began."""
    if not _STATUS.exists():
        return peak_resident_bytes()
    found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    return int(found[1]) * 1024 if found else peak_resident_bytes()


def machine() -> str:
    """Words for the machine that measures."""
    cpu = platform.processor() or platform.machine()
    names = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", names.read_text()) if names.exists() else None
    return f"{torch.get_num_threads()} threads of {found[1] if found else cpu}, torch {torch.__version__}"
