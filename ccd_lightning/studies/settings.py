"""What configuration files say together, and which of it D_0 depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

LATER = (
    "trainer.plan.student_update",
    "trainer.plan.teacher_update",
    "trainer.plan.distillation",
    "trainer.plan.cycle",
    "trainer.plan.teacher_every",
    "distillation.student_replay",
    "distillation.teacher_replay",
    "distillation.graph",
    "distillation.generation.warm_start",
    "distillation.stability_momentum",
    "distillation.plasticity_momentum",
    "distillation.exclusion",
    "distillation.observed",
    "model.student.new_rows",
    "model.student.new_rows_topk",
    "model.student.backbone.graph",
    "model.student.backbone.edge_decay",
    "model.student.backbone.deployed_decay",
    "model.teachers.*.new_rows",
    "model.teachers.*.new_rows_topk",
    "model.teachers.*.backbone.graph",
    "model.teachers.*.backbone.edge_decay",
    "model.teachers.*.backbone.deployed_decay",
)
"""Settings that change nothing before D_1; ``*`` stands for every teacher. A test tries each of them."""


def merged_settings(files: Iterable[str]) -> dict[str, Any]:
    """What files laid over each other say together, without the ``init_args`` that classes put between the keys.

    As on the command line, mappings are merged, classes in a list one by one if the later file lists as many, and anything else
    is replaced. Where a later file names another class, the command line keeps what that class takes too; here all of it is
    kept: telling two settings apart for nothing costs time, taking them for the same would cost truth.

    Args:
        files: names of YAML files.

    Raises:
        ValueError: if a file does not exist or holds no mapping.
    """
    merged: dict[str, Any] = {}
    for file in files:
        merged = _laid_over(merged, _flattened(_read(Path(file))))
    return merged


def family_of(settings: Mapping[str, Any]) -> str:
    """A digest of whatever D_0 depends on: runs of equal families and seeds are bit for bit the same until D_1.

    Settings are compared as they are written, so that a default value that one of two files spells out makes two families:
    then D_0 is learned twice, but never shared wrongly.

    Args:
        settings: as :func:`merged_settings` gives them.
    """
    kept = {key: value for key, value in _leaves(settings) if not any(_matches(key, later) for later in LATER)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(
            f"The study names the configuration {path}, but there is no such file: mend the name, or call from the folder"
            " that it is relative to."
        )
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"The configuration {path} cannot be read as YAML ({reason}): mend it.") from error
    if not isinstance(content, dict):
        raise ValueError(f"The configuration {path} holds no mapping of keys to values: mend it.")
    return {str(key): value for key, value in content.items()}


def _flattened(content: Any) -> Any:
    if isinstance(content, dict):
        inner = content.get("init_args") or {}
        return {str(key): _flattened(value) for key, value in {**content, **inner}.items() if key != "init_args"}
    return [_flattened(value) for value in content] if isinstance(content, list) else content


def _laid_over(below: Any, above: Any) -> Any:
    if isinstance(below, list) and isinstance(above, list) and len(below) == len(above):
        return [_laid_over(*pair) if _is_class(pair[0]) else pair[1] for pair in zip(below, above, strict=True)]
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{key: _laid_over(below.get(key), value) for key, value in above.items()}}


def _is_class(content: Any) -> bool:
    return isinstance(content, dict) and "class_path" in content


def _leaves(content: Any, place: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(content, dict):
        parts: Iterable[tuple[Any, Any]] = content.items()
    elif isinstance(content, list):
        parts = enumerate(content)
    else:
        yield place, content
        return
    for key, value in parts:
        yield from _leaves(value, f"{place}.{key}" if place else str(key))


def _matches(key: str, pattern: str) -> bool:
    names, expected = key.split("."), pattern.split(".")
    return len(names) >= len(expected) and all(
        wanted in ("*", name) for name, wanted in zip(names, expected, strict=False)
    )
