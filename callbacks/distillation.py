"""What is transferred when, between whom."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor
from typing_extensions import override

from ccd_lightning.backbones import MultVAE
from ccd_lightning.callbacks.settings import GenerationSettings, GraphSettings, ReplaySettings, TeacherReplaySettings
from ccd_lightning.checks import by_block, require_number, require_whole, require_word
from ccd_lightning.data import ContinualDataModule, PairSet, Span
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.memory import release_freed_memory
from ccd_lightning.modules import PROXIES, CollaborativeDistillation, Recommender, Teacher
from ccd_lightning.objectives import (
    GraphDistillation,
    Objective,
    OldKnowledge,
    OutputImitation,
    RankingDistillation,
    Rankings,
    Replay,
    ReplayDraw,
    ReplaySource,
    Scorer,
    SoftPositives,
    pairs_of_lists,
    per_block,
    top_items,
    top_lists,
)
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import Block, Side, Stage, StageKind


class DistillationCallback(StreamCallback):
    """Orchestrates the knowledge transfer between teachers, proxies and student (Lee, Kang, Kweon, Yu, KDD 2024).

    At the start of a stage it turns the models that teach into knowledge, top-K rankings with scores, and hands the model that
    learns its objectives. Before a block's student update it merges the distilled student into the proxies.

    Args:
        generation: Stage 1, student generation.
        student_replay: replay into the student (Stage 2); both proxies remember.
        teacher_replay: replay into the teachers (Stage 3); both proxies and the updated student remember.
        graph: the teachers' own continual learning.
        stability_momentum: weight of the past in the stability proxy, by block, near 1.
        plasticity_momentum: weight of the past in the plasticity proxy, by block, near 0.
        exclusion: places of the rankings of teacher system, distilled student and replayed proxies that are never drawn as
            negatives in the student's update; 0 for none.
        observed: which train interactions are left out of the rankings.
    """

    def __init__(
        self,
        generation: GenerationSettings | None = None,
        student_replay: ReplaySettings | None = None,
        teacher_replay: TeacherReplaySettings | None = None,
        graph: GraphSettings | None = None,
        stability_momentum: float | list[float] = 0.9,
        plasticity_momentum: float | list[float] = 0.1,
        exclusion: int = 40,
        observed: Span = "cumulative",
    ) -> None:
        for name, value in (
            *by_block("stability_momentum", stability_momentum),
            *by_block("plasticity_momentum", plasticity_momentum),
        ):
            require_number(name, value, least=0, most=1)
        require_whole("exclusion", exclusion, 0)
        require_word("observed", observed, Span)
        self.generation = generation or GenerationSettings()
        self.student_replay = student_replay or ReplaySettings()
        self.teacher_replay = teacher_replay or TeacherReplaySettings()
        self.graph = graph or GraphSettings()
        self.momenta = {"stability": stability_momentum, "plasticity": plasticity_momentum}
        self.exclusion = exclusion
        self.observed: Span = observed
        self._sources: list[ReplaySource] | None = None
        self._draw: ReplayDraw | None = None

    @override
    def on_stage_start(self, trainer: StreamTrainer, system: CollaborativeDistillation, stage: Stage) -> None:
        """Hand the model that learns its objectives."""
        teach: dict[StageKind, Callable[[StreamTrainer, CollaborativeDistillation, Stage], None]] = {
            StageKind.STUDENT_UPDATE: self._teach_student,
            StageKind.TEACHER_UPDATE: self._teach_teacher,
            StageKind.DISTILLATION: self._teach_new_student,
        }
        # A model that only counts can teach, but takes no lesson.
        if stage.kind in teach and system.learner(stage).is_trainable():
            teach[stage.kind](trainer, system, stage)

    @override
    def on_stage_end(self, trainer: StreamTrainer, system: CollaborativeDistillation, stage: Stage) -> None:
        """Note how much was replayed; let go of knowledge that later stages must take anew."""
        if self._draw is not None:
            trainer.record.replayed[stage.name] = dict(self._draw.counts)
            self._draw = None
        if stage.is_last_of_kind:
            self._sources = None
        release_freed_memory()

    def _teach_student(self, trainer: StreamTrainer, system: CollaborativeDistillation, stage: Stage) -> None:
        """Stage 2: replay from both proxies; what any model ranks high is no negative."""
        for name in PROXIES:
            system.update_proxy(name, per_block(self.momenta[name], stage.block))
        system.to(trainer.strategy.root_device)
        stream = trainer.stream
        sources = self._replay_sources(system, stream, stage.block, self.student_replay)
        if self.exclusion:
            rankings = [source.rankings.best(self.exclusion) for source in sources]
            drawing = _who_draws_negatives(trainer, system.student, stage)
            for scorer in (system.teacher_system(), system.student.backbone):
                rankings.append(self._ranking(scorer, self.exclusion, stream, stage.block, system.device, drawing))
            system.student.excluded = _pairs_of(rankings, stream.blocks[stage.block])
        self._add_replay(system.student, stream, stage, sources, self.student_replay)

    def _teach_teacher(self, trainer: StreamTrainer, system: CollaborativeDistillation, stage: Stage) -> None:
        """Stage 3: the teacher's own past, and replay of what proxies and student know."""
        teacher = system.learner(stage)
        assert isinstance(teacher, Teacher)
        stream = trainer.stream
        past = self._own_past(teacher, stream)
        if past is not None:
            teacher.objectives.append(past)
        if self._sources is None:
            self._sources = self._replay_sources(system, stream, stage.block, self.teacher_replay)
        self._add_replay(teacher, stream, stage, self._sources, self.teacher_replay)

    def _teach_new_student(self, trainer: StreamTrainer, system: CollaborativeDistillation, stage: Stage) -> None:
        """Stage 1: the teacher system's rankings from both sides."""
        settings, stream = self.generation, trainer.stream
        known = self._known_to_students(system, stream, stage.block)
        if not settings.warm_start and stage.block > 0:
            system.student.start_afresh(stage.block)
        if not settings.user_weight and not settings.item_weight:
            return
        observed = stream.history(stage.block).observed(self.observed)
        users, items = top_lists(system.teacher_system(), settings.list_length, observed, system.device)
        shape = (observed.num_rows, observed.num_columns)
        interesting = (pairs_of_lists(users, *shape), pairs_of_lists(items, *reversed(shape)).transpose())
        excluded = observed.union(*interesting, *known)
        sides = [(Side.USER, users, excluded, settings.user_weight)] if settings.user_weight else []
        if settings.item_weight and system.student.backbone.embeddings() is not None:
            sides.append((Side.ITEM, items, excluded.transpose(), settings.item_weight))
        for side, lists, pairs, weight in sides:
            system.student.objectives.append(
                RankingDistillation(lists, pairs, side, weight, settings.sample, settings.propagated)
            )

    def _known_to_students(
        self, system: CollaborativeDistillation, stream: ContinualDataModule, block: int
    ) -> list[PairSet]:
        """The first places of student and proxies before Stage 1: no uninteresting entities, where that is asked."""
        places = self.generation.exclusion
        models = [model for model in (system.student.backbone, *map(system.proxy, PROXIES)) if model.num_users]
        if not places or not models:
            return []
        return [
            _pairs_of(
                [self._ranking(one, places, stream, block, system.device) for one in models], stream.blocks[block]
            )
        ]

    def _ranking(
        self,
        scorer: Scorer,
        places: int,
        stream: ContinualDataModule,
        block: int,
        device: torch.device,
        users: Tensor | None = None,
    ) -> Rankings:
        return top_items(scorer, places, stream.history(block).observed(self.observed), device, users)

    def _replay_sources(
        self,
        system: CollaborativeDistillation,
        stream: ContinualDataModule,
        block: int,
        settings: ReplaySettings,
    ) -> list[ReplaySource]:
        scorers: dict[str, Scorer] = {name: system.proxy(name) for name in PROXIES}
        scorers["student"] = system.student.backbone
        samples = {name: int(per_block(number, block)) for name, number in settings.samples().items()}
        places = int(per_block(settings.top_n, block))
        return [
            ReplaySource(name, self._ranking(scorers[name], places, stream, block, system.device), number)
            for name, number in samples.items()
            if number > 0 and scorers[name].num_users > 0
        ]

    def _add_replay(
        self,
        learner: Recommender,
        stream: ContinualDataModule,
        stage: Stage,
        sources: list[ReplaySource],
        settings: ReplaySettings,
    ) -> None:
        if not sources:
            return
        draw = self._draw = ReplayDraw(sources, settings.eps)
        if isinstance(learner.backbone, MultVAE):
            news = stream.history(stage.block).since(learner.backbone.known_block)
            learner.objectives.append(SoftPositives(draw, news.block.train.users))
        else:
            learner.objectives.append(Replay(draw, settings.scale, settings.decay))

    def _own_past(self, teacher: Teacher, stream: ContinualDataModule) -> Objective | None:
        settings, backbone = self.graph, teacher.backbone
        if backbone.embeddings() is not None:
            if not settings.weight:
                return None
            # What it learned last may have been several blocks at once.
            old = OldKnowledge.of(backbone, stream.history(backbone.known_block).since(backbone.known_before))
            return GraphDistillation(
                old,
                settings.weight,
                teacher.personal if settings.personal else None,
                settings.cluster_weight,
                settings.temperature,
                settings.sample,
                stream.seed,
            )
        if not settings.output_weight:
            return None
        common = stream.history(backbone.known_block).observed("cumulative")
        return OutputImitation(deepcopy(backbone), common, settings.output_weight)


def _who_draws_negatives(trainer: StreamTrainer, learner: Recommender, stage: Stage) -> Tensor | None:
    """The users of the interactions that a stage learns; ``None`` for everybody. On a long stream most are not in the block."""
    settings = trainer.plan.settings(stage)
    if settings.past or settings.afresh:
        return None
    news = trainer.stream.history(stage.block).since(learner.backbone.known_block).block
    drawing: Tensor = torch.unique(news.train.users)
    return drawing


def _pairs_of(rankings: list[Rankings], block: Block) -> PairSet:
    """All the places of some rankings as pairs, over the users and items known after a block."""
    first, *others = (ranking.pairs(block.num_users, block.num_items) for ranking in rankings)
    return first.union(*others)
