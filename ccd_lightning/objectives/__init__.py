"""What a stage minimises, one small module an idea."""

from ccd_lightning.objectives.base import Objective, per_block
from ccd_lightning.objectives.experience import ExperienceReplay
from ccd_lightning.objectives.graph_distillation import GraphDistillation, OldKnowledge, PersonalWeights
from ccd_lightning.objectives.knowledge import Rankings, Scorer, pairs_of_lists, top_items, top_lists, top_overlap
from ccd_lightning.objectives.output_imitation import OutputImitation
from ccd_lightning.objectives.own import OwnLoss
from ccd_lightning.objectives.ranking_distillation import RankingDistillation
from ccd_lightning.objectives.replay import Replay, ReplayDraw, ReplaySource, SoftPositives

__all__ = [
    "ExperienceReplay",
    "GraphDistillation",
    "Objective",
    "OldKnowledge",
    "OutputImitation",
    "OwnLoss",
    "PersonalWeights",
    "RankingDistillation",
    "Rankings",
    "Replay",
    "ReplayDraw",
    "ReplaySource",
    "Scorer",
    "SoftPositives",
    "pairs_of_lists",
    "per_block",
    "top_items",
    "top_lists",
    "top_overlap",
]
