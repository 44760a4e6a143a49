"""A recommender as a LightningModule that learns one stage after the other."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from typing_extensions import override

from ccd_lightning.backbones import Backbone, NewRows, deal_out_rows, gather_rows_back
from ccd_lightning.checks import require_whole, require_word
from ccd_lightning.data.history import History
from ccd_lightning.data.loader import BatchSet
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.distributed import data_group, process_rank, share_data_over, world_size
from ccd_lightning.metrics import RankingMetrics
from ccd_lightning.modules.evaluation import full_precision, rank_block
from ccd_lightning.objectives import ExperienceReplay, Objective, OwnLoss
from ccd_lightning.seeding import seeded_generator
from ccd_lightning.types import Batch, EvaluationBatch, Stage, StageSettings

MONITOR = "valid/recall@20"
"""What early stopping and best-state keeping watch."""


class Recommender(LightningModule):
    """A backbone, the objectives of its present stage, and how it is optimised.

    Callbacks add objectives and exclusion lists at the start of a stage; :meth:`begin_stage` then lets the backbone
    meet the block and adds its own loss. A subclass may override any hook of a LightningModule.

    Args:
        backbone: the model.
        new_rows: how rows of new users and items begin.
        new_rows_topk: two-hop neighbours of a new entity (paper, initialisation of new entities).
        objectives: further terms of the loss in every stage that this model learns, each stage with copies of its own.
    """

    def __init__(
        self,
        backbone: Backbone,
        new_rows: NewRows = "neighbours",
        new_rows_topk: int = 20,
        objectives: list[Objective] | None = None,
    ) -> None:
        super().__init__()
        require_word("new_rows", new_rows, NewRows)
        require_whole("new_rows_topk", new_rows_topk, 1)
        self.backbone = backbone
        self.new_rows: NewRows = new_rows
        self.new_rows_topk = new_rows_topk
        self.role = "model"
        # In a tuple, because they are patterns and no part of the model.
        self.further_objectives = tuple(objectives or ())
        self.objectives = nn.ModuleList()
        self.excluded: PairSet | None = None
        self.settings = StageSettings()
        self.stage: Stage | None = None
        self.seed = 0
        self.first_epoch = 0
        self.recalls: list[float] = []
        self._epoch_losses: dict[str, list[Tensor]] = {}
        self._epoch_steps: dict[str, list[int]] = {}
        self._valid: list[RankingMetrics] = []
        self._parameters_of_objectives: list[nn.Parameter] = []

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _keep_signature(cls.training_step)

    @property
    def stage_epoch(self) -> int:
        """Epochs since the stage began; the Trainer's own count goes on over the stream."""
        return int(self.current_epoch) - self.first_epoch

    def generator(self, *purpose: int | str) -> torch.Generator:
        """A CPU generator for a purpose within this model's stage."""
        name = "" if self.stage is None else self.stage.name
        return seeded_generator(self.seed, self.role, name, *purpose)

    def begin_stage(self, stage: Stage, settings: StageSettings, history: History, seed: int, first_epoch: int) -> None:
        """Meet the stage's block and get ready to learn it.

        Args:
            stage: what is learned.
            settings: how it is optimised.
            history: the blocks up to the stage's.
            seed: seed of the run.
            first_epoch: the Trainer's epoch count at which the stage begins.
        """
        self.stage, self.settings, self.seed, self.first_epoch = stage, settings, seed, first_epoch
        self.recalls = []
        if settings.afresh:
            self.backbone.reset(self.generator("fresh"))
        news = history.since(self.backbone.known_block)
        self.backbone.meet(history, self.new_rows, self.new_rows_topk, self.generator("new rows"))
        self.objectives.insert(0, self._own_loss(news))
        self.objectives.extend(deepcopy(self.further_objectives))
        for objective in self._objectives():
            objective.prepare(self.backbone)
        self._parameters_of_objectives = [one for one in self.objectives.parameters() if one.requires_grad]
        self.refresh(epoch=0)

    def is_trainable(self) -> bool:
        """Whether there is anything to optimise: a model that only counts is done when it has met the block."""
        return any(parameter.requires_grad for parameter in self.backbone.parameters())

    @override
    def configure_model(self) -> None:
        """Deal out the tables' rows, where the strategy has a tensor-parallel mesh (Lightning's ModelParallelStrategy).

        Raises:
            MisconfigurationException: if the strategy has data-parallel copies of the shards too.
        """
        mesh = self._device_mesh
        if mesh is None:
            share_data_over(None)
            return
        copies = mesh["data_parallel"].size()
        if copies > 1:
            raise MisconfigurationException(
                f"The strategy has `data_parallel_size` {copies}, but the gradients of sharded tables are not averaged over"
                " copies: set it to 1, and `tensor_parallel_size` to the number of processes."
            )
        share_data_over(mesh["data_parallel"].get_group())
        deal_out_rows(self.backbone, mesh["tensor_parallel"])

    def end_stage(self) -> None:
        """Let go of the stage's objectives and of what they hold; the tables are whole again."""
        gather_rows_back(self.backbone)
        for objective in self._objectives():
            objective.finish(self.backbone)
        self.objectives = nn.ModuleList()
        self._parameters_of_objectives = []
        self.excluded = None

    def refresh(self, epoch: int) -> None:
        """Redraw the samples that depend on the model's present state.

        Args:
            epoch: epoch of the stage from which on they are learned.
        """
        for index, objective in enumerate(self._objectives()):
            objective.refresh(self.backbone, self.generator("refresh", index, epoch))

    def check_finite(self) -> None:
        """Refuse to go on, or to save, with losses or parameters that are not finite.

        Raises:
            MisconfigurationException: naming the stage, the objective and the first bad batch of the epoch.
        """
        stage = "training" if self.stage is None else self.stage.name
        for name, values in self._epoch_losses.items():
            bad = (~torch.stack(values).isfinite()).nonzero()
            if bad.numel():
                raise MisconfigurationException(
                    f"{stage}: the objective `{name}` of {self.role} was not finite at batch"
                    f" {self._epoch_steps[name][int(bad[0])]} of epoch"
                    f" {self.stage_epoch}, but training needs finite losses. The last good checkpoint is kept: lower the stage's"
                    " learning rate or the objective's weight, and go on with `--ckpt_path last`."
                )
        if not all(_is_finite(parameter.detach()) for parameter in self.backbone.parameters()):
            raise MisconfigurationException(
                f"{stage}: parameters of {self.role} were not finite after epoch {self.stage_epoch}. The last good checkpoint is"
                " kept: lower the stage's learning rate, and go on with `--ckpt_path last`."
            )

    def epoch_batches(self) -> list[BatchSet]:
        """This epoch's batches, objective by objective, on the model's device."""
        sets = []
        for index, objective in enumerate(self._objectives()):
            generator = self.generator("batches", index, self.stage_epoch)
            batches = objective.batches(self.settings.batch_size, generator)
            if batches is not None:
                sets.append(batches.to(self.device))
        return sets

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        terms = []
        with self.backbone.shared():
            for objective in self._objectives():
                if not isinstance(batch, objective.batch_types):
                    continue
                value = objective(self.backbone, batch)
                # Kept as they are until the epoch ends: logging or looking at each step would wait for the device.
                self._epoch_losses.setdefault(objective.name, []).append(value.detach())
                self._epoch_steps.setdefault(objective.name, []).append(batch_idx)
                weight = objective.weight(self.stage_epoch)
                terms.append(value if weight == 1 else weight * value)
        # Objectives' own parameters take part in every step, because DDP waits for the gradient of each parameter.
        terms += [parameter.sum() * 0.0 for parameter in self._parameters_of_objectives]
        loss = terms[0] if len(terms) == 1 else torch.stack(terms).sum()
        # The losses of all the processes add up, but DDP averages their gradients.
        return loss if world_size() == 1 else loss * world_size()

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes there which hook runs, some forty times a step, and a Module's own way to set attributes is slow.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @override
    def on_train_start(self) -> None:
        for objective in self._objectives():
            objective.resume(self.backbone)

    @override
    def on_train_epoch_start(self) -> None:
        # What is drawn without a generator, as by dropout, is the same when a stage goes on; each process has its own.
        seed = self.generator("without generator", self.stage_epoch, process_rank()).initial_seed()
        # For a CPU its own generator will do: the other devices' are seeded through a stack trace each time.
        seeding = torch.default_generator if self.device.type == "cpu" else torch
        seeding.manual_seed(seed)

    @override
    def on_train_epoch_end(self) -> None:
        self.check_finite()
        for name, values in self._epoch_losses.items():
            total = torch.stack(values).sum()
            self.log(f"{self.role}/loss/{name}", total, reduce_fx="sum", sync_dist=True, sync_dist_group=data_group())
        self._epoch_losses, self._epoch_steps = {}, {}

    @override
    def on_validation_epoch_start(self) -> None:
        loader: Any = self.trainer.val_dataloaders
        self._valid = [RankingMetrics((20,)).to(self.device) for _ in loader.blocks]

    @override
    def validation_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        with full_precision(self.device):
            scores = self.backbone.scores(batch.users)
        for metric, targets in zip(self._valid, batch.targets, strict=True):
            metric.update(*rank_block(scores, targets, 20))

    @override
    def on_validation_epoch_end(self) -> None:
        computed = [metric.compute() for metric in self._valid]
        for name in ("recall@20", "ndcg@20"):
            mean = torch.stack([values[name] for values in computed]).nanmean().float()
            # Where no block asks anybody there is nothing to stop by: the stage takes all its epochs and keeps its last state.
            if not mean.isnan():
                self.log(f"valid/{name}", mean, logger=False)
                self.log(f"{self.role}/valid/{name}", mean)
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.refresh(self.stage_epoch + 1)

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        # A fused step takes either whole or sharded parameters.
        kinds = [[one for one in parameters if isinstance(one, DTensor) == sharded] for sharded in (False, True)]
        return torch.optim.Adam(
            [{"params": kind} for kind in kinds if kind],
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            eps=self.settings.eps,
            fused=not self._is_clipped_in_mixed_precision(),
        )

    def _is_clipped_in_mixed_precision(self) -> bool:
        """Lightning cannot clip gradients there that a fused optimizer unscales by itself."""
        trainer = self._trainer
        if trainer is None or not trainer.gradient_clip_val:
            return False
        return isinstance(trainer.precision_plugin, MixedPrecision)

    def _own_loss(self, history: History) -> OwnLoss:
        observed = history.observed("cumulative")
        forbidden = observed if self.excluded is None else observed.union(self.excluded)
        own = OwnLoss(history.block.train, forbidden, self.settings.negatives, self.backbone.batch_type)
        if not self.settings.past:
            return own
        return ExperienceReplay(own, history.past, self.settings.past)

    def _objectives(self) -> list[Objective]:
        return [cast(Objective, objective) for objective in self.objectives]


def _keep_signature(step: Callable[..., Any]) -> None:
    """Let the function carry its signature: Lightning asks for it in every step, and making it anew takes 0.1 ms."""
    step.__signature__ = inspect.signature(step)  # type: ignore[attr-defined]


_keep_signature(Recommender.training_step)


def _is_finite(values: Tensor) -> bool:
    # A sum reads the table once and writes nothing; one that is not finite may still be that of large finite values.
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())
