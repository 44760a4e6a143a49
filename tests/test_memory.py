"""What the process does with freed memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from ccd_lightning.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(8_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

default = faults()
assert keep_freed_memory()
torch.ones(8_000_000)
print(default, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the thresholds are glibc's")
def test_kept_memory_is_not_faulted_in_again() -> None:
    printed = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    default, kept = (int(number) for number in printed.split())
    assert kept < default / 10


RELEASING = """
import resource, torch
from pathlib import Path
from ccd_lightning.memory import keep_freed_memory, release_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

keep_freed_memory()
before = resident()
held = [torch.ones(1_000_000) for _ in range(50)]
last = held[-1]
del held
kept = resident() - before
assert release_freed_memory()
print(kept, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the thresholds are glibc's")
def test_released_memory_goes_back_to_the_system() -> None:
    printed = subprocess.run([sys.executable, "-c", RELEASING], capture_output=True, text=True, check=True).stdout
    kept, left = (int(number) for number in printed.split())
    assert kept > 150e6 and left < kept / 4
