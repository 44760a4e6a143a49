"""The LightningModules: teachers, the student, and the system of both."""

from ccd_lightning.modules.base import MONITOR, Recommender
from ccd_lightning.modules.evaluation import GROUPS, BlockMetrics, rank_block
from ccd_lightning.modules.student import Student
from ccd_lightning.modules.system import PROXIES, CollaborativeDistillation
from ccd_lightning.modules.teacher import Teacher, TeacherSystem

__all__ = [
    "GROUPS",
    "MONITOR",
    "PROXIES",
    "BlockMetrics",
    "CollaborativeDistillation",
    "Recommender",
    "Student",
    "Teacher",
    "TeacherSystem",
    "rank_block",
]
