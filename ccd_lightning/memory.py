"""How the process keeps its memory."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT = 2**30


def keep_freed_memory() -> bool:
    """Let glibc keep freed buffers for the next step, in place of giving their pages back and faulting them in again.

    A training step on a CPU frees and allocates the same large buffers over and over; with glibc's own thresholds a third
    of its time is spent in the kernel. Elsewhere than on glibc nothing happens.

    Returns:
        Whether the thresholds were set.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return all(bool(library.mallopt(option, _KEPT)) for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))


def release_freed_memory() -> bool:
    """Give kept buffers back to the system, as between two stages, whose buffers differ in size.

    Returns:
        Whether any memory was given back; never elsewhere than on glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).malloc_trim(0))
