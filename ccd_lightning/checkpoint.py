"""Stream checkpoints: everything that the next stage needs, in a file from which nothing can be executed."""

from __future__ import annotations

import fcntl
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from ccd_lightning.processes import is_lost_connection
from ccd_lightning.types import Stage, StageKind

VERSION = 1
SUFFIX = ".ckpt"
UNFINISHED = ".part"
FOLDER = "checkpoints"

_NEARLY_NOTHING = 2**20
_KEYS = {"system", "stage", "stages_done", "record", "fingerprints", "callbacks", "loops"}


def stage_to_state(stage: Stage) -> dict[str, Any]:
    """A stage as plain values."""
    return {"block": stage.block, "kind": stage.kind.value, "teacher": stage.teacher, "last": stage.is_last_of_kind}


def stage_from_state(state: dict[str, Any]) -> Stage:
    """The stage that :func:`stage_to_state` described."""
    return Stage(state["block"], StageKind(state["kind"]), state["teacher"], state["last"])


def write_checkpoint(path: Path, payload: dict[str, Any]) -> None:
    """Write a file that is either whole or absent: write beside it, flush to disk, rename.

    Args:
        path: where it shall stand.
        payload: tensors and plain values.
    """
    with whole_file(path) as draft, draft.open("wb") as file:
        torch.save({"version": VERSION, **payload}, file)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A draft beside a file, which takes the file's place at the end; if writing fails, nothing of it stays.

    Args:
        path: where the file shall stand.

    Raises:
        MisconfigurationException: if the draft could not be written, as on a full disk.
    """
    draft = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        draft.replace(path)
    except (OSError, RuntimeError) as error:
        if is_lost_connection(error):
            raise
        # On a full disk torch complains about a position in the file.
        full = path.parent.is_dir() and shutil.disk_usage(path.parent).free < _NEARLY_NOTHING
        reason = "the disk is full" if full else str(error).splitlines()[0]
        raise MisconfigurationException(
            f"{path} could not be written ({reason}): see that the folder can be written to and has room, then go on with"
            " `--ckpt_path last`. Earlier checkpoints are whole."
        ) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


@contextmanager
def alone_in(folder: Path, advice: str) -> Iterator[int]:
    """Keep other processes out of a folder for as long as the context lasts, or this process lives.

    Args:
        folder: made if it is not there.
        advice: the end of the message if another process is in it.

    Yields:
        a descriptor of the folder; processes that inherit it keep others out too.

    Raises:
        MisconfigurationException: if another process is in it, or it is no folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The folder itself is locked, so that nothing is left in it.
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise MisconfigurationException(
            f"{folder} is no folder to work in ({error.strerror}): name another one."
        ) from error
    try:
        # Some network file systems know no locks of folders.
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise MisconfigurationException(f"Another process works in {folder}: {advice}") from error
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def only_job_in(run: Path, speaks: bool) -> Iterator[None]:
    """Let one job learn in a run's folder; its first process speaks for all of them.

    Args:
        run: the folder.
        speaks: whether this is the first process of a job that writes there.
    """
    advice = "wait for it, or name another folder with `--trainer.default_root_dir`."
    with alone_in(run, advice) if speaks else nullcontext():
        yield


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are admitted.

    Raises:
        MisconfigurationException: if the file is no stream checkpoint, or of a newer version.
    """
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise MisconfigurationException(
            f"{path} cannot be read as a stream checkpoint ({why_unreadable(error)})."
            " Remove it to fall back to the one before, or pass another `ckpt_path`."
        ) from error
    if not isinstance(payload, dict) or not isinstance(payload.get("version"), int):
        raise MisconfigurationException(
            f"{path} is no stream checkpoint: pass a file written by `StreamCheckpoint`, or `last`."
        )
    if payload["version"] > VERSION:
        raise MisconfigurationException(
            f"{path} has version {payload['version']}, but this release reads up to version {VERSION}: upgrade ccd-lightning."
        )
    missing = sorted(_KEYS - payload.keys())
    if missing:
        raise MisconfigurationException(
            f"{path} lacks {', '.join(missing)}, without which no stream can go on: pass a file written by `StreamCheckpoint`,"
            " or `last`."
        )
    return payload


def why_unreadable(error: Exception) -> str:
    """What is wrong with a file that torch refuses; torch's own words advise to load it unsafely.

    Args:
        error: what `torch.load` raised with ``weights_only=True``.
    """
    foreign = re.search(
        r"GLOBAL (\S+)|Trying to (?:load|call reduce for) unsupported (?:GLOBAL|class) (\S+)", str(error)
    )
    if foreign:
        return f"it asks for `{foreign[1] or foreign[2]}`, but only tensors and plain values are admitted; nothing of it was run"
    if isinstance(error, pickle.UnpicklingError):
        return "it holds something else than tensors and plain values; nothing of it was run"
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), 'it is empty or cut off')}"


def checkpoints_in(run: Path) -> list[Path]:
    """Stream checkpoints of a run folder, newest stage last."""
    return _of_stages(run / FOLDER, SUFFIX)


def unfinished_in(run: Path) -> list[Path]:
    """States within a stage in a run folder, the latest stage last."""
    return _of_stages(run / FOLDER, UNFINISHED)


def has_saved(run: Path) -> bool:
    """Whether a stream can go on in a run folder, after a finished stage or within the first one."""
    return bool(checkpoints_in(run) or unfinished_in(run))


def refuse_second_stream(run: Path) -> None:
    """Refuse to mix two streams in one folder.

    Raises:
        MisconfigurationException: if the folder holds a stream.
    """
    if has_saved(run):
        raise MisconfigurationException(
            f"{run} already holds a stream. To go on with it, add `--ckpt_path last`; to start another one, name another"
            " folder with `--trainer.default_root_dir`, or remove this one."
        )


def serial_of(path: Path) -> int:
    """Which stage of the stream a file was saved after, or within, counted from 1."""
    return int(path.name.split("-")[0])


def _of_stages(folder: Path, suffix: str) -> list[Path]:
    """Lightning's own checkpoints may stand in a folder of the same name."""
    found = folder.glob(f"*-block*{suffix}")
    return sorted((path for path in found if re.match(r"\d+-block", path.name)), key=serial_of)


class Saved(NamedTuple):
    """Where a stream can go on.

    Attributes:
        finished: checkpoints written after a stage, the newest first; empty before the first stage has ended.
        unfinished: state within the stage that follows the newest of them, if there is one.
    """

    finished: list[Path]
    unfinished: Path | None


def unfinished_path(run: Path, serial: int, stage: Stage) -> Path:
    """Where the state within the ``serial``-th stage of a stream is kept."""
    return run / FOLDER / f"{serial:05d}-{stage.name}{UNFINISHED}"


def find_saved(ckpt_path: str | Path, run: Path) -> Saved:
    """Resolve what the user passed: ``last``, a run folder, its folder of checkpoints, or a file.

    Args:
        ckpt_path: the user's word.
        run: folder that ``last`` means.

    Raises:
        MisconfigurationException: if there is nothing there.
    """
    path = run if str(ckpt_path) == "last" else Path(ckpt_path)
    if path.is_file():
        return Saved([path], None)
    if not path.is_dir() and str(ckpt_path) != "last":
        raise MisconfigurationException(
            f"`ckpt_path` is {ckpt_path}, but no such file or folder exists: pass `last`, a run's folder or a checkpoint file."
        )
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    finished, unfinished = _of_stages(folder, SUFFIX)[::-1], _of_stages(folder, UNFINISHED)
    if not finished and not unfinished:
        raise MisconfigurationException(
            f"There is no stream checkpoint in {folder}: start the stream with `fit` and without `--ckpt_path`, or pass"
            " the folder of a run that has one."
        )
    return Saved(finished, unfinished[-1] if unfinished else None)
