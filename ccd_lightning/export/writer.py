"""What an export consists of, and how it comes to stand."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from polars.exceptions import PolarsError
from safetensors import SafetensorError
from safetensors.torch import save
from torch import nn
from torch.export import ExportedProgram

from ccd_lightning.backbones import Backbone
from ccd_lightning.data import History, Stream
from ccd_lightning.export.folders import drafted
from ccd_lightning.export.programs import (
    TRACEABLE,
    FactorScorer,
    FusedScorer,
    missing_packages,
    program_bytes,
    reason_of,
    same_lists,
    scorer_of,
    trace,
    write_onnx,
)
from ccd_lightning.export.readme import readme
from ccd_lightning.export.tables import write_ids, write_popular, write_seen
from ccd_lightning.modules import CollaborativeDistillation
from ccd_lightning.modules.teacher import TeacherSystem

Role = Literal["student", "teacher"]
"""What is exported: the student, or the fused teacher system."""

FORMAT = 2
"""Version of the files' layout."""

MANIFEST = "manifest.json"

ONNX_BYTES = 2**31 - 2**20
"""An ONNX file is one message of Protocol Buffers, which has at most 2 GiB."""

_SUFFIXES = (".safetensors", ".onnx", ".pt2")
_TABLES = ("users.parquet", "items.parquet", "seen.parquet", "popular.parquet")
_OWN = {
    *(f"{role}{suffix}" for role in ("student", "teacher") for suffix in _SUFFIXES),
    *_TABLES,
    "README.md",
    MANIFEST,
}
_TRIED_USERS = 16


def export_system(
    system: CollaborativeDistillation, stream: Stream, run: Path, output: str | None, role: Role, seen: bool
) -> None:
    """Export a part of the system, and tell where it is and what is missing.

    Args:
        system: the student and its teachers.
        stream: the data that they were trained on.
        run: the run's folder.
        output: folder to write; ``None`` takes ``export`` or ``export_teacher`` in the run's folder.
        role: which part.
        seen: also write what each user has seen.
    """
    folder = Path(output) if output else run / ("export" if role == "student" else f"export_{role}")
    model = system.teacher_system() if role == "teacher" else system.student.backbone
    manifest = export_model(model, stream, folder, role, seen)
    for name, reason in manifest["missing"].items():
        print(f"Without {name}: {reason}")
    print(f"The {role} is in {folder}.")


def export_model(
    model: Backbone | TeacherSystem, stream: Stream, folder: Path, role: Role = "student", seen: bool = True
) -> dict[str, Any]:
    """Write a recommender as safetensors, ONNX and a `torch.export` program, with ids, tables, manifest and README.

    The folder appears whole or not at all; an earlier export at the same place is replaced in one step. Where a symbolic link
    is named, what it points to is replaced and the link stays.

    Args:
        model: the student's backbone, or the teacher system.
        stream: the data that it was trained on.
        folder: where the export shall stand.
        role: what the files are named after.
        seen: also write what each user has seen, so that it can be left out of recommendations.

    Returns:
        The manifest. What could not be written is named, with the reason, under ``missing``.

    Raises:
        MisconfigurationException: if the folder holds something else than an export, it cannot be written, or the model has
            met no block.
    """
    _require_replaceable(folder)
    _require_known(model, role)
    try:
        with drafted(folder) as draft:
            return _write_files(model, stream, draft, role, seen)
    except (OSError, SafetensorError, PolarsError) as error:
        raise MisconfigurationException(
            f"The export {folder} could not be written ({error}): see that the folder can be written to and has room, or name"
            " another one with `--output`."
        ) from error


def _require_replaceable(folder: Path) -> None:
    """Whatever is no export is the user's, and stays."""
    if not folder.exists():
        return
    inside = {path.name for path in folder.iterdir()} if folder.is_dir() else {"a file"}
    strange = sorted(inside - _OWN)
    if strange:
        raise MisconfigurationException(
            f"{folder} is there already and no export (it holds {', '.join(strange[:3])}), and would be replaced as a whole:"
            " name a folder that is new, empty or an earlier export with `--output`."
        )


def _require_known(model: Backbone | TeacherSystem, role: Role) -> None:
    """A run that was stopped within its first block may have models that have met nobody."""
    strangers = [type(member).__name__ for member in _members(model) if member.known_block < 0]
    if strangers:
        raise MisconfigurationException(
            f"The {role} knows nobody yet ({' + '.join(strangers)} has met no block), but only a model that has learned its first"
            " block can be exported: let `fit --ckpt_path last` finish block 0, then export again."
        )


def _write_files(
    model: Backbone | TeacherSystem, stream: Stream, draft: Path, role: Role, seen: bool
) -> dict[str, Any]:
    block = min(member.known_block for member in _members(model))
    history = History(tuple(stream.blocks[: block + 1]))
    scorer = scorer_of(model)
    _check_scores(scorer, model)
    tensors = {
        name: tensor.contiguous() for name, tensor in scorer.state_dict().items() if isinstance(tensor, torch.Tensor)
    }
    # The file of `save_file` could be read by its owner alone.
    (draft / f"{role}.safetensors").write_bytes(save(tensors))
    missing = _write_programs(scorer, history, draft, role)
    write_ids(stream, model.num_users, model.num_items, draft)
    write_popular(history, draft / "popular.parquet")
    if seen:
        write_seen(history, draft / "seen.parquet")
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "role": role,
        "block": block,
        "backbone": _names(model),
        "num_users": model.num_users,
        "num_items": model.num_items,
        "dim": scorer.items.shape[1] if isinstance(scorer, FactorScorer) else None,
        "bytes": sum(tensor.nbytes for tensor in tensors.values()),
        "missing": missing,
    }
    files = sorted(path.name for path in draft.iterdir())
    example = stream.users.decode(torch.tensor([0]))[0]
    (draft / "README.md").write_text(readme(manifest, example, files), encoding="utf-8")
    manifest["sha256"] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(draft.iterdir())}
    (draft / MANIFEST).write_text(json.dumps(manifest, indent=2))
    return manifest


@torch.no_grad()
def _check_scores(scorer: nn.Module, model: Backbone | TeacherSystem) -> None:
    """A backbone of the user's may override `scores` and forget its embeddings.

    A teacher system is checked member by member: where scores are nearly equal, rank fusion makes whole places of roundings.
    """
    if isinstance(scorer, FusedScorer) and isinstance(model, TeacherSystem):
        for part, member in zip(scorer.members, model.members, strict=True):
            _check_scores(part, member)
        return
    users = torch.arange(min(_TRIED_USERS, model.num_users))
    found, expected = scorer(users), model.scores(users)[:, : model.num_items].float().cpu()
    if not torch.allclose(found, expected, 1e-4, 1e-4):
        names = _names(model)
        raise MisconfigurationException(
            f"The export's scores differ from those of {names} by up to {float((found - expected).abs().max()):.2g}, but must be"
            f" the same: let `factors` (by default `embeddings`) of {names} say what `scores` does, or return `None`."
        )


def _members(model: Backbone | TeacherSystem) -> list[Backbone]:
    return model.members if isinstance(model, TeacherSystem) else [model]


def _names(model: Backbone | TeacherSystem) -> str:
    return " + ".join(type(member).__name__ for member in _members(model))


def _write_programs(scorer: nn.Module, history: History, draft: Path, role: Role) -> dict[str, str]:
    """Write both programs; those that cannot be written, with the reason."""
    onnx, portable = draft / f"{role}.onnx", draft / f"{role}.pt2"
    try:
        program = trace(scorer)
        content = program_bytes(program)
    except Exception as error:
        reason = f"`scores` of the backbone cannot be traced ({reason_of(error)}): {TRACEABLE}, or define `factors`."
        return {onnx.name: reason, portable.name: reason}
    portable.write_bytes(content)
    refused = _write_onnx(program, onnx, scorer, history, len(content))
    if refused is None:
        return {}
    onnx.unlink(missing_ok=True)
    return {onnx.name: refused}


def _write_onnx(program: ExportedProgram, path: Path, scorer: nn.Module, history: History, size: int) -> str | None:
    """Write and try an ONNX file; the reason if there can be none."""
    absent = missing_packages()
    if absent:
        return f"{', '.join(absent)} must be installed: `pip install 'ccd-lightning[export]'`, then export again."
    if size > ONNX_BYTES:
        return f"the model has {size / 1e9:.1f} GB, but an ONNX file holds {ONNX_BYTES / 1e9:.1f} GB: use the `.pt2`."
    try:
        write_onnx(program, path)
        same = same_lists(path, scorer, history.block.num_users, min(20, history.block.num_items))
    except OSError:
        raise
    except Exception as error:
        return f"ONNX has no way to say what `scores` does ({reason_of(error)}): define `factors`, or use the `.pt2`."
    return None if same else "its lists differ from the model's: report the backbone, and use the safetensors."
