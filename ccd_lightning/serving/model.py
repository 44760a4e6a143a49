"""An export in memory: from a raw user id to raw item ids."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from ccd_lightning.serving.files import read_checked, read_columns, read_manifest, read_numbers

RawId = str | int
"""An id of the user's own data."""


class Recommended(NamedTuple):
    """What a user gets.

    Attributes:
        items: raw ids, best first.
        scores: of the model; for an unknown user the items' interactions in the last block.
        known: whether the model knows the user.
    """

    items: list[RawId]
    scores: list[float]
    known: bool


class ServedModel:
    """A recommender that was read from an export and never changes.

    Args:
        manifest: what the export says of itself.
        version: digest of the manifest.
        session: the ONNX model.
        users: raw ids by row.
        items: raw ids by row.
        popular: item rows, most popular first, int64 ``(I,)``, and their counts.
        seen: user rows, ascending, and item rows, both int64 ``(P,)``; ``None`` if the export does not carry them.
    """

    def __init__(
        self,
        manifest: dict[str, Any],
        version: str,
        session: onnxruntime.InferenceSession,
        users: list[RawId],
        items: list[RawId],
        popular: tuple[np.ndarray, np.ndarray],
        seen: tuple[np.ndarray, np.ndarray] | None,
    ) -> None:
        self.manifest, self.version, self.items = manifest, version, items
        self._session, self._popular, self._seen = session, popular, seen
        self._rows = {raw: row for row, raw in enumerate(users)}
        self._integers = bool(users) and isinstance(users[0], int)

    @property
    def has_seen(self) -> bool:
        """Whether what users have seen can be left out."""
        return self._seen is not None

    def user_of(self, text: str) -> RawId:
        """The raw id that a text means.

        Raises:
            ValueError: if it is no integer where ids are integers.
        """
        if not self._integers:
            return text
        # As integers are written: 007 is the id of somebody else than 7, where there are such ids.
        if not re.fullmatch("0|-?[1-9][0-9]{0,18}", text):
            raise ValueError(
                f"The user {text!r} is no integer id, but this model's users are: ask with one such as {next(iter(self._rows))}."
            )
        return int(text)

    def recommend(self, user: RawId, k: int, seen: bool) -> Recommended:
        """The best items of a user; of one whom the model does not know, the most popular items of its last block.

        Args:
            user: raw id.
            k: items at most, from 1 to the number of items.
            seen: whether items that the user has seen may be among them.
        """
        row = self._rows.get(user)
        if row is None:
            best, scores = (column[:k] for column in self._popular)
        else:
            exclude = np.empty(0, np.int64) if seen else self._seen_by(row)
            best, scores = self._run(row, k, exclude)
            kept = scores > -np.inf
            best, scores = best[kept], scores[kept]
        return Recommended([self.items[item] for item in best.tolist()], scores.tolist(), row is not None)

    def _run(self, row: int, k: int, exclude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = {"users": np.array([row]), "k": np.array(k), "exclude": exclude[None, :]}
        items, scores = self._session.run(["items", "scores"], values)
        return items[0], scores[0]

    def _seen_by(self, row: int) -> np.ndarray:
        if self._seen is None:
            return np.empty(0, np.int64)
        users, items = self._seen
        start, end = np.searchsorted(users, [row, row + 1])
        return items[start:end]


def load_export(folder: Path) -> ServedModel:
    """Read an export whole, check it and try it.

    Args:
        folder: what `export` wrote.

    Raises:
        ValueError: if a file is absent, changed, or not what it should be.
    """
    manifest, version = read_manifest(folder)
    popular = _read_pairs(folder, "popular.parquet", manifest, ("item", "num_items"), ("count", None))
    seen = None
    if "seen.parquet" in manifest["sha256"]:
        seen = _read_pairs(folder, "seen.parquet", manifest, ("user", "num_users"), ("item", "num_items"))
        if (np.diff(seen[0]) < 0).any():
            raise ValueError(f"{folder / 'seen.parquet'} is not sorted by users: export the model again.")
    users, items = (_read_ids(folder, name, manifest) for name in ("users", "items"))
    model = ServedModel(manifest, version, _open_session(folder, manifest), users, items, popular, seen)
    _try(model, folder)
    return model


def _read_ids(folder: Path, name: str, manifest: dict[str, Any]) -> list[RawId]:
    path, count = folder / f"{name}.parquet", manifest[f"num_{name}"]
    table = read_columns(read_checked(folder, path.name, manifest), path, "raw", "id")
    raw: list[RawId] = table["raw"].to_pylist()
    kinds = {type(value) for value in raw}
    if len(kinds) > 1 or not kinds <= {str, int}:
        raise ValueError(f"{path}: column `raw` must hold strings or integers: export the model again.")
    if not np.array_equal(read_numbers(table, "id", path, max(1, count)), np.arange(count)) or len(set(raw)) < count:
        raise ValueError(f"{path} does not hold {count} ids in order without repeats: export the model again.")
    return raw


def _read_pairs(
    folder: Path, name: str, manifest: dict[str, Any], *columns: tuple[str, str | None]
) -> tuple[np.ndarray, np.ndarray]:
    path = folder / name
    table = read_columns(read_checked(folder, name, manifest), path, *(column for column, _ in columns))
    first, second = (read_numbers(table, column, path, manifest[size] if size else 2**31) for column, size in columns)
    return first, second


def _open_session(folder: Path, manifest: dict[str, Any]) -> onnxruntime.InferenceSession:
    name = f"{manifest['role']}.onnx"
    content = read_checked(folder, name, manifest)
    options = onnxruntime.SessionOptions()
    # Requests run beside each other; threads within one would fight for the same cores.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"{folder / name} cannot be read as an ONNX model ({reason}): export the model again."
        ) from error


def _try(model: ServedModel, folder: Path) -> None:
    """Ask for the first and the last user's whole rankings."""
    users, size = list(model._rows), len(model.items)
    try:
        answers = [model.recommend(user, size, seen=True) for user in (users[0], users[-1])]
        usable = all(len(set(answer.items)) == size and np.isfinite(answer.scores).all() for answer in answers)
    except Exception as error:  # onnxruntime's errors share no base class
        raise ValueError(
            f"The model in {folder} cannot be asked ({next(iter(str(error).splitlines()), '')}): export it again."
        ) from error
    if not usable:
        raise ValueError(f"The model in {folder} does not rank its {size} items with finite scores: export it again.")
