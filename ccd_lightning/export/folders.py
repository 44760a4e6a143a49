"""A folder that is replaced as a whole, while others read it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def replace_folder(draft: Path, folder: Path) -> None:
    """Let a finished draft take a folder's place; what stood there is removed.

    On Linux both change places in one step of the file system, so that whoever opens the folder finds the old one or the new
    one. Elsewhere there is no such step, and for a moment between two renames the folder is absent.

    Args:
        draft: a folder on the same file system; it is gone afterwards.
        folder: where it shall stand; a symbolic link stays one, and what it points to is replaced.
    """
    folder = Path(os.path.realpath(folder))
    if not folder.exists():
        draft.replace(folder)
        return
    if not _exchange(draft, folder):
        old = draft.with_name(f"{draft.name}.old")
        _remove(old)
        folder.replace(old)
        draft.replace(folder)
        draft = old
    shutil.rmtree(draft)


@contextmanager
def drafted(folder: Path) -> Iterator[Path]:
    """A new, empty folder that takes another one's place if the block ends well, and is gone if it does not.

    Args:
        folder: where it shall stand. A symbolic link stays one, and what it points to is replaced.

    Yields:
        The folder to write into.

    Raises:
        ValueError: if another process is writing one for the same place.
    """
    # The link itself could be exchanged too, but then it would lie among the drafts and what it points to would stay old.
    folder = Path(os.path.realpath(folder))
    draft = folder.with_name(f".{folder.name}.tmp")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        _remove(draft)
        try:
            draft.mkdir()
            yield draft
            replace_folder(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep others from replacing a folder; the lock is a file beside it, since the folder itself is exchanged."""
    lock = folder.with_name(f".{folder.name}.lock")
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR)
    try:
        # Some network file systems know no locks.
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_ours = os.fstat(descriptor).st_nlink > 0
            except BlockingIOError:
                is_ours = False
            if not is_ours:
                raise ValueError(f"Another process is writing {folder}: wait until it is done, or name another folder.")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove what a killed process may have left, whatever it is: `rmtree` refuses links."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step, where system and file system can."""
    with suppress(OSError, AttributeError):
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)
    return False
