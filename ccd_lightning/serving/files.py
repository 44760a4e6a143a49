"""Reading an export's files as data alone, each against the checksum of the manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import ArrowException, BufferReader, Table
from pyarrow.parquet import ParquetFile

MANIFEST = "manifest.json"
FORMAT = 2
_SIZES = ("block", "num_users", "num_items")


def read_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    """The manifest, and its digest: the version of the export.

    Args:
        folder: the export.

    Raises:
        ValueError: if there is none, or it is none of ours.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        manifest = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} cannot be read as the manifest of an export ({error}): name a folder that `export` has written."
        ) from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise ValueError(
            f"{path} is of format {found}, but this release serves format {FORMAT}: export the model again with this release."
        )
    sizes_known = all(type(manifest.get(name)) is int for name in _SIZES)
    if not sizes_known or manifest.get("role") not in ("student", "teacher") or not _is_names(manifest.get("sha256")):
        raise ValueError(f"{path} lacks sizes, role or checksums: export the model again.")
    return manifest, hashlib.sha256(content).hexdigest()[:12]


def read_checked(folder: Path, name: str, manifest: Mapping[str, Any]) -> bytes:
    """A file's bytes.

    Args:
        folder: the export.
        name: the file.
        manifest: where its checksum stands.

    Raises:
        ValueError: if the file is absent or was changed.
    """
    path = folder / name
    if name not in manifest["sha256"]:
        reason = _is_names(manifest.get("missing")) and manifest["missing"].get(name)
        raise ValueError(f"{path} is not part of this export: {reason or 'export the model again.'}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): export the model again.") from error
    found, expected = hashlib.sha256(content).hexdigest(), manifest["sha256"][name]
    if found != expected:
        raise ValueError(
            f"{path} has the SHA-256 {found[:12]}, but the manifest says {str(expected)[:12]}: the file was changed or is not"
            " complete yet. Copy the export again."
        )
    return content


def read_columns(content: bytes, path: Path, *names: str) -> Table:
    """Columns of a Parquet file.

    Args:
        content: the file's bytes.
        path: what messages call it.
        names: columns that must be there.

    Raises:
        ValueError: if it is no such file.
    """
    try:
        table = ParquetFile(BufferReader(content)).read(columns=list(names))
        table.validate(full=True)
        return table.select(names)
    except (ArrowException, OSError, ValueError, TypeError, LookupError, MemoryError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"{path} cannot be read as Parquet with the columns {', '.join(names)} ({reason}): export the model again."
        ) from error


def read_numbers(table: Table, name: str, path: Path, limit: int) -> np.ndarray:
    """A column of row numbers, int64.

    Args:
        table: the columns.
        name: the column.
        path: what messages call the file.
        limit: numbers are below it.

    Raises:
        ValueError: if it holds anything else.
    """
    values = table[name].to_numpy()
    fits = values.dtype.kind == "i" and (not len(values) or (values.min() >= 0 and values.max() < limit))
    if not fits:
        raise ValueError(f"{path}: column `{name}` must hold numbers from 0 to {limit - 1}: export the model again.")
    numbers: np.ndarray = values.astype(np.int64)
    return numbers


def _is_names(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values())
