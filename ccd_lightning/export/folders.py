"""A folder that is replaced as a whole, while others read it."""

from __future__ import annotations

import ctypes
import os
import shutil
from contextlib import suppress
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def replace_folder(draft: Path, folder: Path) -> None:
    """Let a finished draft take a folder's place; what stood there is removed.

    On Linux both change places in one step of the file system, so that whoever opens the folder finds the old one or the new
    one. Elsewhere there is no such step, and for a moment between two renames the folder is absent.

    Args:
        draft: a folder on the same file system; it is gone afterwards.
        folder: where it shall stand.
    """
    if not folder.exists():
        draft.replace(folder)
        return
    if not _exchange(draft, folder):
        old = draft.with_name(f"{draft.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
        draft.replace(folder)
        draft = old
    shutil.rmtree(draft)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step, where system and file system can."""
    with suppress(OSError, AttributeError):
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)
    return False
