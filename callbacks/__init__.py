"""Callbacks of the stream; imported as `ccd_lightning.callbacks`."""

from ccd_lightning.callbacks.distillation import DistillationCallback
from ccd_lightning.callbacks.progress import StreamProgress
from ccd_lightning.callbacks.recommendations import Recommendations
from ccd_lightning.callbacks.report import StreamReport
from ccd_lightning.callbacks.settings import GenerationSettings, GraphSettings, ReplaySettings, TeacherReplaySettings
from ccd_lightning.callbacks.stream_checkpoint import StreamCheckpoint
from ccd_lightning.callbacks.wandb_stream import WandbStream, trial_folder

__all__ = [
    "DistillationCallback",
    "GenerationSettings",
    "GraphSettings",
    "Recommendations",
    "ReplaySettings",
    "StreamCheckpoint",
    "StreamProgress",
    "StreamReport",
    "TeacherReplaySettings",
    "WandbStream",
    "trial_folder",
]
