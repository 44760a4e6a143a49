"""Streams in the layout of the paper authors' release, read without trusting the files."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import polars as pl

from ccd_lightning.data.safe_pickle import load_plain
from ccd_lightning.data.sources import StreamSource
from ccd_lightning.data.splitting import SPLIT_WORDS

_SCHEMA = ["user", "item", "split"]
# What Python's unpickler raises on garbage, by what the garbage happens to spell.
_UNREADABLE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)


class TaskPickles(StreamSource):
    """A folder with one ``TASK_<k>.pickle`` a block, each a dict with ``train_dict``, ``valid_dict`` and ``test_dict``.

    These map each user to a list of items. Where a file also declares ``num_base_block_users`` and
    ``num_base_block_items``, the ids of its block must be below these counts. Pickles can run code when they are read:
    here only dict, defaultdict(list), list, int and numpy integers are admitted, and nothing is run.

    Args:
        path: the folder that holds ``TASK_0.pickle``, ``TASK_1.pickle``, ...
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def table(self) -> pl.DataFrame:
        """The interactions of all tasks; in each, those of train come before those of valid and of test."""
        parts = [_read_task(path).with_columns(block=pl.lit(index)) for index, path in enumerate(self._tasks())]
        for index, part in enumerate(parts):
            if part.schema != parts[0].schema:
                raise ValueError(
                    f"{self.path}: TASK_{index}.pickle holds ids of type {part.dtypes[:2]}, but TASK_0.pickle of type"
                    f" {parts[0].dtypes[:2]}. Give users and items the same type in every task."
                )
        return pl.concat(parts)

    def describe(self) -> str:
        """The folder's path."""
        return str(self.path)

    def _tasks(self) -> list[Path]:
        named = [(re.fullmatch(r"TASK_(\d+)\.pickle", path.name), path) for path in self.path.glob("TASK_*.pickle")]
        tasks = {int(name[1]): path for name, path in named if name}
        if not tasks:
            raise ValueError(f"{self.path}: there is no TASK_0.pickle in this folder. Check the source's `path`.")
        for index in range(max(tasks)):
            if index not in tasks:
                raise ValueError(
                    f"{self.path}: TASK_{index}.pickle is missing, but TASK_{max(tasks)}.pickle is there."
                    " Blocks must follow each other: restore the file or take the later ones away."
                )
        return [tasks[index] for index in sorted(tasks)]


def _read_task(path: Path) -> pl.DataFrame:
    try:
        task = load_plain(path)
    except _UNREADABLE as error:
        raise ValueError(
            f"{path} cannot be read as a task: {error}. Expected a pickle of dicts and lists of integers."
            " Write the file again with these alone."
        ) from error
    parts = [f"{word}_dict" for word in SPLIT_WORDS]
    if not isinstance(task, dict) or any(not isinstance(task.get(part), dict) for part in parts):
        found = ", ".join(map(str, task)) if isinstance(task, dict) else type(task).__name__
        raise ValueError(f"{path} holds {found}, but the dicts {', '.join(parts)} are needed. Add those that lack.")
    rows = _rows(task, path)
    if rows.is_empty():
        raise ValueError(f"{path} holds no interaction, so its block would be empty. Take the task out and renumber.")
    _require_declared(rows, task, path)
    return rows


def _rows(task: dict[str, Any], path: Path) -> pl.DataFrame:
    users: list[Any] = []
    items: list[Any] = []
    splits: list[str] = []
    for word in SPLIT_WORDS:
        for user, chosen in task[f"{word}_dict"].items():
            if not isinstance(chosen, list | tuple):
                raise ValueError(
                    f"{path}, {word}_dict: user {user!r} has {type(chosen).__name__}, but a list of items was expected."
                    " Give every user a list."
                )
            users += [user] * len(chosen)
            items += chosen
            splits += [word] * len(chosen)
    for name, ids in (("user", users), ("item", items)):
        kinds = sorted({type(value).__name__ for value in ids} - {"NumpyInteger"})
        if kinds not in ([], ["int"], ["str"]):
            raise ValueError(
                f"{path}: {name} ids are of type {', '.join(kinds)}, but either all are integers or all are strings."
                " Convert them before pickling."
            )
    return pl.DataFrame([users, items, splits], schema=_SCHEMA)


def _require_declared(rows: pl.DataFrame, task: dict[str, Any], path: Path) -> None:
    """A model grown to the declared counts has no row for ids beyond them."""
    for name in ("user", "item"):
        key = f"num_base_block_{name}s"
        count = task.get(key)
        if not isinstance(count, int) or not rows[name].dtype.is_integer():
            continue
        unknown = rows.filter(pl.col(name) >= count)
        if not unknown.is_empty():
            value, split = unknown.select(name, "split").row(0)
            raise ValueError(
                f"{path}, {split}_dict: {name} {value} cannot be known to the model, since `{key}` is {count} and ids"
                " must be below it. Correct the count or take the rows out."
            )
