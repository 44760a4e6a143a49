"""What a stream checkpoint holds, and how a stream goes on from it."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.rank_zero import rank_zero_warn

from ccd_lightning.backbones import Backbone
from ccd_lightning.checkpoint import (
    FOLDER,
    Saved,
    find_saved,
    has_saved,
    read_checkpoint,
    refuse_second_stream,
    stage_from_state,
    stage_to_state,
)
from ccd_lightning.data import ContinualDataModule, check_same_blocks
from ccd_lightning.modules import PROXIES, CollaborativeDistillation
from ccd_lightning.readable import check_readable
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
    check_savable(trainer, system)
    return {
        "stage": stage_to_state(last),
        "stages_done": trainer.stages_done,
        "system": system.state_dict(),
        "record": trainer.record.state_dict(),
        "fingerprints": [block.fingerprint for block in stream.blocks[: last.block + 1]],
        "callbacks": _states_of_callbacks(trainer),
        "loops": trainer.fit_loop.state_dict(),
    }


def check_savable(trainer: StreamTrainer, system: CollaborativeDistillation) -> None:
    """Make sure that what callbacks and system want to keep can be read again.

    Raises:
        MisconfigurationException: naming whose state cannot.
    """
    for owner, state in _states_of_callbacks(trainer).items():
        check_readable(owner, state)
    check_readable(type(system).__name__, system.state_dict())


def _states_of_callbacks(trainer: StreamTrainer) -> dict[str, Any]:
    states = {callback.state_key: callback.state_dict() for callback in trainer.callbacks}
    return {key: state for key, state in states.items() if state}


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
    check_learned_blocks(state["fingerprints"], stream)
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
            backbone.observe(stream.history(backbone.known_block).since(backbone.known_before))
    trainer.record.load_state_dict(state["record"])
    system.student.backbone.settle(trainer.record.student_role() == "distilled")
    trainer.last_stage = stage_from_state(state["stage"])
    _note_going_on(trainer, saved, trainer.last_stage.name, saved.finished[: saved.finished.index(path)])
    trainer.stages_done = state["stages_done"]
    for callback in trainer.callbacks:
        if callback.state_key in state["callbacks"]:
            callback.load_state_dict(state["callbacks"][callback.state_key])
    trainer.fit_loop.load_state_dict(state["loops"])
    # The saved stage is finished: the next one starts at its first epoch.
    trainer.fit_loop.restarting = False


def check_learned_blocks(fingerprints: list[str], stream: ContinualDataModule) -> None:
    """Make sure that the data hold, unchanged, the blocks that a run has learned.

    Args:
        fingerprints: of these blocks.
        stream: the data.

    Raises:
        MisconfigurationException: if `max_blocks` leaves some out.
        ValueError: if one has changed.
    """
    check_same_blocks(fingerprints, stream.stream, stream.source.describe())
    if len(stream.blocks) < len(fingerprints):
        raise MisconfigurationException(
            f"The run has learned {len(fingerprints)} blocks, but `data.max_blocks` is {stream.max_blocks}: pass that many or"
            " more, or leave it out."
        )


def check_answers(trainer: StreamTrainer, system: CollaborativeDistillation, stream: ContinualDataModule) -> None:
    """Make sure that a system can answer for the stream that its Trainer has just learned.

    Raises:
        MisconfigurationException: if it has not learned it, or `max_blocks` leaves some of it out.
        ValueError: if the data are others.
    """
    assert trainer.last_stage is not None
    learned = trainer.last_stage.block
    if max(backbone.known_block for backbone in _backbones(system)) < learned:
        raise MisconfigurationException(
            f"The Trainer has learned the blocks up to D{learned}, but this system has not: pass the one that was fitted, or a"
            " `ckpt_path`."
        )
    check_learned_blocks([block.fingerprint for block in trainer.stream.blocks[: learned + 1]], stream)


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
        done: names of all that are done: none of them is learned twice where the plan has changed since.
    """
    left = stages[stages.index(last) + 1 :] if last in stages else stages
    return [stage for stage in left if stage.name not in done]


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


def where_to_go_on(ckpt_path: str | Path | None, run: Path) -> str | Path | None:
    """What the user passed, unless the stream's folder tells better.

    A requeued SLURM job runs the same command again and means ``last``, wherever it began. A run that was stopped before
    anything of it was saved begins anew.

    Raises:
        MisconfigurationException: if a stream shall begin where there is one or go on where there is none, or the folder holds
            a file that Lightning would load into every stage under SLURM.
    """
    for path in run.glob("hpc_ckpt_*") if SLURMEnvironment.detect() else ():
        raise MisconfigurationException(
            f"{path} is a checkpoint that Lightning saved under SLURM, not one of a stream, and would be loaded into every"
            " stage: move it away, or name another folder with `--trainer.default_root_dir`."
        )
    if was_requeued() and has_saved(run):
        return "last"
    if ckpt_path is None or not _is_of(run, ckpt_path):
        # What is learned from another run's checkpoint would take the place of this run's later ones.
        refuse_second_stream(run)
    if str(ckpt_path) == "last" and (run / MANIFEST).is_file() and not has_saved(run):
        rank_zero_warn(f"The stream in {run} was stopped before anything was saved: it begins anew.")
        return None
    if ckpt_path is not None and not run.is_dir():
        # Before a folder is made whose name may be mistyped.
        find_saved(ckpt_path, run)
    return ckpt_path


def _is_of(run: Path, ckpt_path: str | Path) -> bool:
    """Whether a checkpoint is one of the run's own."""
    return str(ckpt_path) == "last" or Path(ckpt_path).resolve().is_relative_to(run.resolve())


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
