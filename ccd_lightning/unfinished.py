"""The state within a stage: what is noted beside it, and whether the stage may go on from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from ccd_lightning.checkpoint import unfinished_path, why_unreadable
from ccd_lightning.modules import Recommender
from ccd_lightning.types import Stage

if TYPE_CHECKING:
    from ccd_lightning.trainer import StreamTrainer


def note_stage(trainer: StreamTrainer, learner: Recommender, stage: Stage, checkpoint: dict[str, Any]) -> None:
    """Note in a state within a stage which blocks it has learned, and with what steps.

    Args:
        trainer: which learns.
        learner: the model that learns.
        stage: what is learned.
        checkpoint: what Lightning is about to save.
    """
    known = trainer.stream.blocks[: stage.block + 1]
    checkpoint["fingerprints"] = [block.fingerprint for block in known]
    checkpoint["steps"] = _steps_of(learner)


def resumable(trainer: StreamTrainer, unfinished: Path | None, stage: Stage, learner: Recommender) -> Path | None:
    """The state within a stage, if that is the stage to go on with and its file is whole.

    It begins anew where the block that it learns has changed, or how large the optimizer's steps are; blocks that finished
    stages have learned must not change, see :func:`ccd_lightning.resume.restore`.

    Raises:
        MisconfigurationException: if it is of another model.
    """
    expected = unfinished_path(Path(trainer.default_root_dir), trainer.stages_done + 1, stage)
    if unfinished is None or unfinished.name != expected.name:
        return None
    try:
        content = torch.load(unfinished, map_location="cpu", weights_only=True)
        saved, fingerprints = dict(content["state_dict"]), content.get("fingerprints", [])
        steps = _steps_of(learner) | content.get("steps", {})
    except Exception as error:
        rank_zero_warn(f"{unfinished} cannot be read ({why_unreadable(error)}); the stage {stage.name} begins anew.")
        trainer.record.note("unreadable", unfinished.name)
        return None
    if fingerprints[stage.block :] not in ([], [trainer.stream.blocks[stage.block].fingerprint]):
        rank_zero_warn(
            f"The data of block {stage.block} have changed since {unfinished}: the stage {stage.name} begins anew."
        )
        return None
    if steps != _steps_of(learner):
        # The optimizer's state holds them, and would go on with those of before.
        rank_zero_warn(
            f"Learning rate, weight decay or eps of {stage.name} have changed since {unfinished}: the stage begins anew."
        )
        return None
    for name, value in learner.state_dict().items():
        if isinstance(value, Tensor) and getattr(saved.get(name), "shape", None) != value.shape:
            raise MisconfigurationException(
                f"{unfinished} was written by another model than the configured one ({name} differs): pass the configuration that"
                " stands beside it, or remove the file to begin the stage anew."
            )
    return unfinished


def _steps_of(learner: Recommender) -> dict[str, float]:
    """What the optimizer's own state holds of the settings."""
    settings = learner.settings
    return {"learning_rate": settings.learning_rate, "weight_decay": settings.weight_decay, "eps": settings.eps}
