"""A recommender as a LightningModule that learns one stage after the other."""

from __future__ import annotations

from typing import Any, cast

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from typing_extensions import override

from ccd_lightning.backbones import Backbone, NewRows, deal_out_rows, gather_rows_back
from ccd_lightning.checks import require_whole, require_word
from ccd_lightning.data.history import History
from ccd_lightning.data.loader import BatchSet
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.distributed import data_group, share_data_over, world_size
from ccd_lightning.metrics import RankingMetrics
from ccd_lightning.modules.evaluation import rank_block
from ccd_lightning.objectives import Objective, OwnLoss
from ccd_lightning.seeding import seeded_generator
from ccd_lightning.types import Batch, EvaluationBatch, Stage, StageSettings

MONITOR = "valid/recall@20"
"""What early stopping and best-state keeping watch."""

_NO_BATCH = 2**62


class Recommender(LightningModule):
    """A backbone, the objectives of its present stage, and how it is optimised.

    Callbacks add objectives and exclusion lists at the start of a stage; :meth:`begin_stage` then lets the backbone
    meet the block and adds its own loss. A subclass may override any hook of a LightningModule.

    Args:
        backbone: the model.
        new_rows: how rows of new users and items begin.
        new_rows_topk: two-hop neighbours of a new entity (paper, initialisation of new entities).
    """

    def __init__(self, backbone: Backbone, new_rows: NewRows = "neighbours", new_rows_topk: int = 20) -> None:
        super().__init__()
        require_word("new_rows", new_rows, NewRows)
        require_whole("new_rows_topk", new_rows_topk, 1)
        self.backbone = backbone
        self.new_rows: NewRows = new_rows
        self.new_rows_topk = new_rows_topk
        self.role = "model"
        self.objectives = nn.ModuleList()
        self.excluded: PairSet | None = None
        self.settings = StageSettings()
        self.stage: Stage | None = None
        self.seed = 0
        self.first_epoch = 0
        self._epoch_losses: dict[str, Tensor] = {}
        self._first_bad: dict[str, Tensor] = {}
        self._valid: list[RankingMetrics] = []

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
        self.backbone.meet(history, self.new_rows, self.new_rows_topk, self.generator("new rows"))
        self.objectives.insert(0, self._own_loss(history))
        for objective in self._objectives():
            objective.prepare(self.backbone)
        self.refresh(epoch=0)

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
        for name, batch in self._first_bad.items():
            if batch < _NO_BATCH:
                raise MisconfigurationException(
                    f"{stage}: the objective `{name}` of {self.role} was not finite at batch {int(batch)} of epoch"
                    f" {self.stage_epoch}, but training needs finite losses. The last good checkpoint is kept: lower the stage's"
                    " learning rate or the objective's weight, and go on with `--ckpt_path last`."
                )
        if not all(bool(parameter.isfinite().all()) for parameter in self.backbone.parameters()):
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
                self._count_loss(objective.name, value.detach(), batch_idx)
                terms.append(objective.weight(self.stage_epoch) * value)
        # Objectives' own parameters take part in every step, because DDP waits for the gradient of each parameter.
        idle = [parameter.sum() * 0.0 for parameter in self.objectives.parameters() if parameter.requires_grad]
        # The losses of all the processes add up, but DDP averages their gradients.
        return torch.stack([*terms, *idle]).sum() * world_size()

    def _count_loss(self, name: str, value: Tensor, batch_idx: int) -> None:
        # Kept on the device: logging or looking at each step would wait for it.
        bad = torch.where(value.isfinite(), _NO_BATCH, batch_idx)
        known = name in self._epoch_losses
        self._epoch_losses[name] = self._epoch_losses[name] + value if known else value
        self._first_bad[name] = torch.minimum(self._first_bad[name], bad) if known else bad

    @override
    def on_train_start(self) -> None:
        for objective in self._objectives():
            objective.resume(self.backbone)

    @override
    def on_train_epoch_end(self) -> None:
        self.check_finite()
        for name, value in self._epoch_losses.items():
            self.log(f"{self.role}/loss/{name}", value, reduce_fx="sum", sync_dist=True, sync_dist_group=data_group())
        self._epoch_losses, self._first_bad = {}, {}

    @override
    def on_validation_epoch_start(self) -> None:
        loader: Any = self.trainer.val_dataloaders
        self._valid = [RankingMetrics((20,)).to(self.device) for _ in loader.blocks]

    @override
    def validation_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        scores = self.backbone.scores(batch.users)
        for metric, targets in zip(self._valid, batch.targets, strict=True):
            metric.update(*rank_block(scores, targets, 20))

    @override
    def on_validation_epoch_end(self) -> None:
        computed = [metric.compute() for metric in self._valid]
        for name in ("recall@20", "ndcg@20"):
            mean = torch.stack([values[name] for values in computed]).mean().float()
            self.log(f"valid/{name}", mean, logger=False)
            self.log(f"{self.role}/valid/{name}", mean)
        if self.trainer.state.fn == "fit":
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
            fused=True,
        )

    def _own_loss(self, history: History) -> OwnLoss:
        observed = history.observed("cumulative")
        forbidden = observed if self.excluded is None else observed.union(self.excluded)
        return OwnLoss(history.block.train, forbidden, self.settings.negatives, self.backbone.batch_type)

    def _objectives(self) -> list[Objective]:
        return [cast(Objective, objective) for objective in self.objectives]
