"""The student and its teachers as one module: what is checkpointed, tested and exported."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from typing_extensions import override

from ccd_lightning.backbones import Backbone
from ccd_lightning.checks import require_number, require_whole
from ccd_lightning.modules.base import Recommender
from ccd_lightning.modules.evaluation import BlockMetrics, full_precision
from ccd_lightning.modules.student import Student
from ccd_lightning.modules.teacher import Teacher, TeacherSystem
from ccd_lightning.objectives import Scorer
from ccd_lightning.types import Block, EvaluationBatch, Split, Stage

PROXIES = ("stability", "plasticity")

TESTED = ("teacher", "student")
"""Who is measured in a test."""


class CollaborativeDistillation(LightningModule):
    """A compact student and a massive teacher system that evolve together (Lee, Kang, Kweon, Yu, KDD 2024).

    Args:
        student: the recommender that is deployed.
        teachers: members of the teacher system, of any kinds.
        fusion_power: exponent of the rank fusion.
        ks: cut-offs of the reported metrics.
    """

    def __init__(
        self,
        student: Student,
        teachers: list[Teacher],
        fusion_power: float = 0.05,
        ks: Sequence[int] = (20, 50, 100),
    ) -> None:
        super().__init__()
        if not teachers:
            raise ValueError("`teachers` is empty, but the teacher system needs at least one member: list one or more.")
        require_number("fusion_power", fusion_power, above=0)
        if not ks:
            raise ValueError("`ks` is empty, but at least one cut-off is needed: name some, such as [20, 50, 100].")
        for k in ks:
            require_whole("ks", k, 1)
        self.student = student
        self.teachers = nn.ModuleList(teachers)
        self.proxies = nn.ModuleDict({name: deepcopy(student.backbone) for name in PROXIES}).requires_grad_(False)
        self.fusion_power = fusion_power
        self.ks = tuple(ks)
        student.role = "student"
        for index, teacher in enumerate(teachers):
            teacher.role = f"teacher{index}"
        self.evaluated: tuple[str, ...] = TESTED
        self._tested: dict[str, dict[tuple[Split, int], BlockMetrics]] = {}

    @property
    def metric_names(self) -> list[str]:
        """The metrics of a test, such as ``recall@20``."""
        return [f"{name}@{k}" for k in self.ks for name in ("recall", "ndcg", "hit_rate")]

    def check_cutoffs(self, blocks: Sequence[Block]) -> None:
        """Refuse cut-offs beyond the catalogue, where every ranking would hold all the items.

        Args:
            blocks: the stream.

        Raises:
            ValueError: naming cut-off and sizes.
        """
        first, last = blocks[0].num_items, blocks[-1].num_items
        if max(self.ks) > last:
            raise ValueError(
                f"`ks` holds {max(self.ks)}, but the stream has {last} items ({first} of them in block 0): name cut-offs of"
                f" at most {last}, such as `--model.ks [{min(20, last)}]`."
            )

    def proxy(self, name: str) -> Backbone:
        """The stability or the plasticity proxy: an older state of the student that proxies what it knew."""
        return cast(Backbone, self.proxies[name])

    def update_proxy(self, name: str, momentum: float) -> None:
        """Merge the present student into a proxy: momentum * proxy + (1 - momentum) * student (paper, proxies).

        Args:
            name: which proxy.
            momentum: weight of the past, in [0, 1]; the first student is copied whatever it is.

        Raises:
            ValueError: if the momentum is outside [0, 1].
        """
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"The {name} proxy's momentum is {momentum}, but must lie in [0, 1]: mend the setting.")
        merged = deepcopy(self.student.backbone).requires_grad_(False)
        previous = self.proxy(name)
        if previous.num_users:
            merged.merge_from(previous, momentum)
        self.proxies[name] = merged

    def members(self) -> list[Teacher]:
        """The teachers."""
        return [cast(Teacher, teacher) for teacher in self.teachers]

    def teacher_system(self) -> TeacherSystem:
        """The teachers as one recommender."""
        return TeacherSystem([teacher.backbone for teacher in self.members()], self.fusion_power)

    def scorer(self, role: str) -> Scorer:
        """Whatever plays a role: ``teacher`` (the fused system), ``student`` or ``distilled`` (the present student)."""
        return self.teacher_system() if role == "teacher" else self.student.backbone

    def learned_roles(self) -> tuple[str, ...]:
        """Who can be measured: the student knows nobody before its first distillation, nor do teachers before theirs."""
        return tuple(role for role in TESTED if self.scorer(role).num_users)

    def get_ready(self, device: torch.device) -> None:
        """Stand on the device as it learns, before a stage begins and whatever teaches in it ranks.

        Args:
            device: where the stage is learned.
        """
        self.to(device)
        self.student.backbone.settle(False)

    def learner(self, stage: Stage) -> Recommender:
        """The module that learns in a stage."""
        return self.student if stage.teacher is None else self.members()[stage.teacher]

    @override
    def configure_model(self) -> None:
        """Its members' tables are whole between the stages, under strategies that shard models too."""

    @override
    def forward(self, users: Tensor) -> Tensor:
        """The student's scores of all known items, float ``(B, I)``."""
        return self.student.backbone.scores(users)

    @override
    def on_test_epoch_start(self) -> None:
        loader: Any = self.trainer.test_dataloaders
        asked = [(split, block) for split in loader.splits for block in loader.blocks]
        self._tested = {role: {key: BlockMetrics(self.ks).to(self.device) for key in asked} for role in self.evaluated}

    @override
    def test_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        for role, metrics in self._tested.items():
            scorer = self.scorer(role)
            known = int((batch.users < scorer.num_users).sum())
            with full_precision(self.device):
                scores = scorer.scores(batch.users[:known])
            for targets in batch.targets:
                metrics[targets.split, targets.block].update(scores, targets, known)

    @override
    def on_test_epoch_end(self) -> None:
        for role, found in self.test_results().items():
            for block, groups in found.items():
                for name, value in groups["all"].items():
                    self.log(f"test/{role}/{name}/D{block}", value, rank_zero_only=True)

    @override
    def on_test_end(self) -> None:
        # Lightning keeps an object for every name ever logged, visits all of them in each later fit, and the names grow with
        # the stream. Their values are logged by now.
        self.trainer.test_loop._results.clear()

    def test_results(self, split: Split = Split.TEST) -> dict[str, dict[int, dict[str, dict[str, float]]]]:
        """The last test's metrics over all processes: role -> block -> group -> metric.

        Args:
            split: the test split, or another one that was asked beside it.
        """
        return {
            role: {block: metric.compute() for (asked, block), metric in metrics.items() if asked is split}
            for role, metrics in self._tested.items()
        }

    @override
    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """The student's scores for a batch of users; callbacks turn them into lists."""
        with full_precision(self.device):
            return self.forward(batch)

    @override
    def configure_optimizers(self) -> None:
        """The system does not learn by itself: its members do, stage by stage."""

    @torch.no_grad()
    def num_parameters(self, role: str) -> int:
        """Parameters of the student or of the teacher system."""
        models = [self.student] if role != "teacher" else self.members()
        return sum(parameter.numel() for model in models for parameter in model.backbone.parameters())
