"""What a run's folder tells those who were not there."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ccd_lightning.record import ROLES
from ccd_lightning.reporting.tables import Summary


@dataclass(frozen=True)
class FinishedRun:
    """What a run's folder tells.

    Attributes:
        name: of the folder.
        summary: content of ``metrics.json``.
        manifest: content of ``stream.json``.
        settings: dotted key -> value of ``config.yaml``.
    """

    name: str
    summary: Summary
    manifest: Mapping[str, Any]
    settings: Mapping[str, Any]


def read_run(folder: Path) -> FinishedRun:
    """Read the folder of a run.

    Args:
        folder: where the run has written.

    Raises:
        ValueError: if it is none, or nothing is measured yet.
    """
    try:
        summary, manifest = (json.loads((folder / name).read_text()) for name in ("metrics.json", "stream.json"))
        measured = any(summary[role] for role in ROLES)
        blocks = len(manifest["blocks"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} is no run's folder: expected `metrics.json` and `stream.json` as `fit` writes them ({error}). Name"
            " folders such as runs/ccd."
        ) from error
    if not measured or not blocks:
        raise ValueError(f"{folder} has measured nothing yet: wait until its first stage is done, or leave it out.")
    config = folder / "config.yaml"
    try:
        settings = dict(_flat(OmegaConf.to_container(OmegaConf.load(config)))) if config.is_file() else {}
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{config} is no configuration ({error}): mend or remove it, or leave the run out.") from error
    return FinishedRun(folder.resolve().name, _with_nan(summary), manifest, settings)


def _with_nan(content: Any) -> Any:
    """JSON has no NaN; what was none before it was written is none again."""
    if isinstance(content, dict):
        return {key: _with_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_with_nan(value) for value in content]
    return math.nan if content is None else content


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of nested mappings and lists.

    >>> dict(_flat({"a": {"b": 1}, "c": [2, {"d": 3}]}))
    {'a.b': 1, 'c.0': 2, 'c.1.d': 3}
    """
    if isinstance(value, dict | list) and value:
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in entries:
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value
