"""What a stream checkpoint holds, and how a stream goes on from it."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from ccd_lightning.backbones import Backbone
from ccd_lightning.checkpoint import (
    FOLDER,
    Saved,
    check_readable,
    find_saved,
    has_saved,
    read_checkpoint,
    refuse_second_stream,
    stage_from_state,
    stage_to_state,
    unfinished_path,
    why_unreadable,
)
from ccd_lightning.data import ContinualDataModule, check_same_blocks
from ccd_lightning.modules import PROXIES, CollaborativeDistillation, Recommender
from ccd_lightning.signals import was_requeued
from ccd_lightning.types import Stage

if TYPE_CHECKING:
    from ccd_lightning.trainer import StreamTrainer

MANIFEST = "stream.json"
"""A file that is in a run's folder from the beginning of the stream."""


def stream_state(
    trainer: StreamTrainer, system: CollaborativeDistillation, stream: ContinualDataModule
) -> dict[str, Any]:
    """Everything that the next stage needs, as tensors and plain values."""
    last = trainer.last_stage
    if last is None:
        raise ValueError("No stage of the stream is done yet, so there is nothing to save: call this after a stage.")
    states = {callback.state_key: callback.state_dict() for callback in trainer.stream_callbacks()}
    for owner, state in states.items():
        check_readable(owner, state)
    return {
        "stage": stage_to_state(last),
        "stages_done": trainer.stages_done,
        "system": system.state_dict(),
        "record": trainer.record.state_dict(),
        "fingerprints": [block.fingerprint for block in stream.blocks[: last.block + 1]],
        "callbacks": states,
        "loops": trainer.fit_loop.state_dict(),
    }


def restore_stream(
    trainer: StreamTrainer, system: CollaborativeDistillation, stream: ContinualDataModule, saved: Saved
) -> None:
    """Bring trainer, system and callbacks to the newest checkpoint that can be read.

    Args:
        trainer: an unused trainer.
        system: a new system of the same configuration.
        stream: the data, old blocks unchanged; new ones may have arrived.
        saved: what was found.

    Raises:
        MisconfigurationException: if no checkpoint can be read, or it is of another model.
        ValueError: if an old block has changed.
    """
    if not saved.finished:
        _note_going_on(trainer, saved, "the beginning")
        return
    path, state = _newest_readable(saved.finished)
    check_same_blocks(state["fingerprints"], stream.stream, stream.source.describe())
    if len(stream.blocks) < len(state["fingerprints"]):
        raise MisconfigurationException(
            f"The run has learned {len(state['fingerprints'])} blocks, but `data.max_blocks` is {stream.max_blocks}: pass that many"
            " or more, or leave it out."
        )
    # Otherwise what was learned in double precision would be rounded.
    trainer.precision_plugin.convert_module(system)
    try:
        system.load_state_dict(state["system"])
    except (RuntimeError, KeyError) as error:
        raise MisconfigurationException(
            f"{path} was written by another model than the configured one ({str(error).splitlines()[-1].strip()}): pass the"
            " configuration that stands beside it."
        ) from error
    for backbone in _backbones(system):
        if backbone.known_block >= 0:
            backbone.observe(stream.history(backbone.known_block))
    trainer.record.load_state_dict(state["record"])
    system.student.backbone.settle(trainer.record.student_role() == "distilled")
    trainer.last_stage = stage_from_state(state["stage"])
    _note_going_on(trainer, saved, trainer.last_stage.name, saved.finished[: saved.finished.index(path)])
    trainer.stages_done = state["stages_done"]
    for callback in trainer.stream_callbacks():
        if callback.state_key in state["callbacks"]:
            callback.load_state_dict(state["callbacks"][callback.state_key])
    trainer.fit_loop.load_state_dict(state["loops"])
    # The saved stage is finished: the next one starts at its first epoch.
    trainer.fit_loop.restarting = False


def restore(
    trainer: StreamTrainer, system: CollaborativeDistillation, stream: ContinualDataModule, ckpt_path: Any
) -> Path | None:
    """Bring trainer and system to where the user wants to go on.

    Args:
        trainer: an unused trainer.
        system: a new system of the same configuration.
        stream: the data.
        ckpt_path: ``last``, a run's folder or a stream checkpoint; ``None`` leaves everything as it is.

    Returns:
        the state within the stage that comes next, if there is one.
    """
    if ckpt_path is None:
        return None
    saved = find_saved(ckpt_path, Path(trainer.default_root_dir))
    restore_stream(trainer, system, stream, saved)
    return saved.unfinished


def stages_left(stages: list[Stage], last: Stage, done: Collection[str]) -> list[Stage]:
    """The stages of the block that a stream goes on within.

    Args:
        stages: those of the plan for the block.
        last: the newest that is done, of the same block.
        done: names of all that are done; they count where the plan has changed since and knows nothing of the last one.
    """
    if last in stages:
        return stages[stages.index(last) + 1 :]
    return [stage for stage in stages if stage.name not in done]


def check_cutoffs(trainer: StreamTrainer, system: CollaborativeDistillation) -> None:
    """Refuse to learn on with other cut-offs: rows of other metrics than those before could not be added up with them.

    Raises:
        MisconfigurationException: naming both.
    """
    for known in (trainer.record.matrices[role]["all"].rows for role in trainer.record.matrices):
        if known and set(known) != set(system.metric_names):
            before = sorted({int(name.partition("@")[2]) for name in known})
            raise MisconfigurationException(
                f"`model.ks` is {sorted(system.ks)}, but the stream has been measured with {before} so far: pass the latter."
            )


def _note_going_on(trainer: StreamTrainer, saved: Saved, behind: str, torn: Sequence[Path] = ()) -> None:
    """Note where a stream goes on and which checkpoints were passed over, behind what its folder remembers."""
    record, run = trainer.record, Path(trainer.default_root_dir)
    newest = saved.unfinished or saved.finished[0]
    is_own = newest.parent.resolve() == (run / FOLDER).resolve()
    manifest = _manifest_of(run) if is_own else {}
    # A stream that was stopped twice within a stage has no checkpoint that knows of the first time.
    record.events = max(record.events, manifest.get("events", []), key=len)
    for path in torn:
        record.note("unreadable", path.name)
    if is_own:
        record.note("continued" if manifest.get("status") == "finished" else "resumed", behind)


def _manifest_of(run: Path) -> dict[str, Any]:
    try:
        found = json.loads((run / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def resumable(trainer: StreamTrainer, unfinished: Path | None, stage: Stage, learner: Recommender) -> Path | None:
    """The state within a stage, if that is the stage to go on with and its file is whole.

    Raises:
        MisconfigurationException: if it is of another model.
        ValueError: if the block that the stage learns has changed.
    """
    expected = unfinished_path(Path(trainer.default_root_dir), trainer.stages_done + 1, stage)
    if unfinished is None or unfinished.name != expected.name:
        return None
    try:
        content = torch.load(unfinished, map_location="cpu", weights_only=True)
        saved, fingerprints = dict(content["state_dict"]), content.get("fingerprints", [])
    except Exception as error:
        rank_zero_warn(f"{unfinished} cannot be read ({why_unreadable(error)}); the stage {stage.name} begins anew.")
        trainer.record.note("unreadable", unfinished.name)
        return None
    check_same_blocks(fingerprints, trainer.stream.stream, trainer.stream.source.describe())
    for name, value in learner.state_dict().items():
        if isinstance(value, Tensor) and getattr(saved.get(name), "shape", None) != value.shape:
            raise MisconfigurationException(
                f"{unfinished} was written by another model than the configured one ({name} differs): pass the configuration that"
                " stands beside it, or remove the file to begin the stage anew."
            )
    return unfinished


def where_to_go_on(ckpt_path: str | Path | None, run: Path) -> str | Path | None:
    """What the user passed, unless the stream's folder tells better.

    A requeued SLURM job runs the same command again and means ``last``. A run that was stopped before anything of it was
    saved begins anew.

    Raises:
        MisconfigurationException: if a stream shall begin where there is one, or the folder holds a file that Lightning
            would load into every stage under SLURM.
    """
    for path in run.glob("hpc_ckpt_*") if SLURMEnvironment.detect() else ():
        raise MisconfigurationException(
            f"{path} is a checkpoint that Lightning saved under SLURM, not one of a stream, and would be loaded into every"
            " stage: move it away, or name another folder with `--trainer.default_root_dir`."
        )
    if ckpt_path is None and was_requeued() and has_saved(run):
        return "last"
    if ckpt_path is None:
        refuse_second_stream(run)
    if str(ckpt_path) == "last" and (run / MANIFEST).is_file() and not has_saved(run):
        rank_zero_warn(f"The stream in {run} was stopped before anything was saved: it begins anew.")
        return None
    return ckpt_path


def _newest_readable(paths: list[Path]) -> tuple[Path, dict[str, Any]]:
    for path, older in zip(paths, [*paths[1:], None], strict=True):
        try:
            return path, read_checkpoint(path)
        except MisconfigurationException as error:
            if older is None:
                raise
            rank_zero_warn(f"{error} Going on from {older.name} instead.")
    raise AssertionError("unreachable: the last path either returns or raises")


def _backbones(system: CollaborativeDistillation) -> list[Backbone]:
    models = [model.backbone for model in (system.student, *system.members())]
    return [*models, *(system.proxy(name) for name in PROXIES)]
