"""Where interactions come from, and the time blocks that are made of them."""

from ccd_lightning.data.block_table import BlockTable
from ccd_lightning.data.blocks import Stream, build_stream, check_same_blocks
from ccd_lightning.data.datamodule import ContinualDataModule
from ccd_lightning.data.history import History, Span
from ccd_lightning.data.id_map import IdMap
from ccd_lightning.data.interaction_log import InteractionLog
from ccd_lightning.data.loader import BatchSet, EvaluationLoader, StageLoader, UserLoader
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.data.pickles import TaskPickles
from ccd_lightning.data.simulated import SimulatedStream
from ccd_lightning.data.sources import StreamSource

__all__ = [
    "BatchSet",
    "BlockTable",
    "ContinualDataModule",
    "EvaluationLoader",
    "History",
    "IdMap",
    "InteractionLog",
    "PairSet",
    "SimulatedStream",
    "Span",
    "StageLoader",
    "Stream",
    "StreamSource",
    "TaskPickles",
    "UserLoader",
    "build_stream",
    "check_same_blocks",
]
