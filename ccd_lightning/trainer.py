"""A Trainer that fits a stream: one Lightning fit for each (block, stage)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import Profiler
from typing_extensions import override

from ccd_lightning.checkpoint import only_job_in
from ccd_lightning.checks import require_stream_options, require_whole
from ccd_lightning.data import ContinualDataModule
from ccd_lightning.export import Role, export_system
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.lean import make_lean
from ccd_lightning.modules import CollaborativeDistillation, Recommender
from ccd_lightning.plan import MEASURED, StreamPlan
from ccd_lightning.processes import check_strategy, surviving
from ccd_lightning.record import StreamRecord
from ccd_lightning.resume import check_answers, check_cutoffs, restore, stages_left, where_to_go_on
from ccd_lightning.signals import StreamSignals
from ccd_lightning.stage_callbacks import check_callbacks, stage_callbacks, those_who_can_watch
from ccd_lightning.types import Split, Stage, StageSettings
from ccd_lightning.unfinished import resumable


class StreamTrainer(Trainer):
    """Fits teachers and student along a stream of blocks.

    Everything that a Lightning Trainer takes can be passed on; the defaults that differ suit short stages.

    Args:
        plan: which stages there are and how each kind is optimised; default: the paper's cycle.
        max_epochs: epochs of a stage whose settings name none.
        enable_checkpointing: Lightning's own checkpoints of single stages; `StreamCheckpoint` saves the stream.
        enable_model_summary: Lightning's table of layers, at every stage.
        num_sanity_val_steps: validation batches before a stage.
        reload_dataloaders_every_n_epochs: an epoch's batches are drawn when it begins, so this stays 1.
        use_distributed_sampler: batches are dealt out to processes by the loaders themselves, so this stays false.
        kwargs: further arguments of `lightning.pytorch.Trainer`.
    """

    callbacks: list[Callback]
    profiler: Profiler

    def __init__(
        self,
        plan: StreamPlan | None = None,
        max_epochs: int = 20,
        enable_checkpointing: bool = False,
        enable_model_summary: bool = False,
        num_sanity_val_steps: int = 0,
        reload_dataloaders_every_n_epochs: int = 1,
        use_distributed_sampler: bool = False,
        **kwargs: Any,
    ) -> None:
        require_whole("max_epochs", max_epochs, 1)
        require_stream_options(kwargs)
        super().__init__(
            max_epochs=max_epochs,
            enable_checkpointing=enable_checkpointing,
            enable_model_summary=enable_model_summary,
            num_sanity_val_steps=num_sanity_val_steps,
            reload_dataloaders_every_n_epochs=reload_dataloaders_every_n_epochs,
            use_distributed_sampler=use_distributed_sampler,
            **kwargs,
        )
        make_lean(self)
        self.plan = plan if plan is not None else StreamPlan()
        self.record = StreamRecord()
        self.stage: Stage | None = None
        self.last_stage: Stage | None = None
        self.stages_done, self._epochs_of_a_stage = 0, max_epochs
        self._unfinished: Path | None = None
        self._signal_connector = self.signals = StreamSignals(self)
        self.stream: ContinualDataModule

    @override
    def fit(  # type: ignore[override]
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: ContinualDataModule | None = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Learn every block of the stream not learned yet.

        Args:
            model: the student and its teachers; any other LightningModule is fitted as by Lightning's own Trainer.
            train_dataloaders: only for other modules.
            val_dataloaders: only for other modules.
            datamodule: the stream.
            ckpt_path: ``last``, a run's folder or a stream checkpoint to go on from; ``None`` begins the stream, but goes on
                with it in a requeued SLURM job.
            weights_only: only for other modules; stream checkpoints are always read with ``weights_only=True``.

        Raises:
            MisconfigurationException: if the datamodule is missing, a launcher spawns processes, or the checkpoint does not fit.
            ProcessLostError: if another process of the run has died.
        """
        if not isinstance(model, CollaborativeDistillation):
            super().fit(model, train_dataloaders, val_dataloaders, datamodule, ckpt_path, weights_only)
            return
        stream = self.stream = self._check(datamodule)
        check_callbacks(self.callbacks, [learner.role for learner in (model.student, *model.members())])
        model.check_cutoffs(stream.blocks)
        run = Path(self.default_root_dir)
        ckpt_path = where_to_go_on(ckpt_path, run)
        with only_job_in(run, self.is_global_zero and any(callback.writes for callback in self.stream_callbacks())):
            self._unfinished = restore(self, model, stream, ckpt_path)
            check_cutoffs(self, model)
            with surviving(self, model):
                self._learn_stream(model, stream)

    def _learn_stream(self, model: CollaborativeDistillation, stream: ContinualDataModule) -> None:
        self._call("on_stream_start", model)
        for block in stream.blocks[self._first_block() :]:
            stages = list(self.plan.stages(block.index, len(model.members())))
            if self.last_stage is not None and self.last_stage.block == block.index:
                stages = stages_left(stages, self.last_stage, [stage["name"] for stage in self.record.stages])
            else:
                self._call("on_block_start", model, block)
            for stage in stages:
                self._learn_stage(model, stream, stage)
            self._measure_missing(model, stream, block.index)
            self._call("on_block_end", model, block)
        self._call("on_stream_end", model)

    def _check(self, datamodule: ContinualDataModule | None) -> ContinualDataModule:
        if not isinstance(datamodule, ContinualDataModule):
            raise MisconfigurationException(
                f"A stream is fitted on a ContinualDataModule, but `datamodule` is {type(datamodule).__name__}: pass one."
            )
        check_strategy(self.strategy)
        return datamodule

    def _first_block(self) -> int:
        return 0 if self.last_stage is None else self.last_stage.block

    def _learn_stage(self, system: CollaborativeDistillation, stream: ContinualDataModule, stage: Stage) -> None:
        started = time.monotonic()
        settings = self.plan.settings(stage)
        system.get_ready(self.strategy.root_device)
        self.stage = stage
        stream.valid_blocks = tuple(range(stage.block + 1)) if settings.monitor_seen else (stage.block,)
        self._call("on_stage_start", system, stage)
        learner = system.learner(stage)
        learner.begin_stage(stage, settings, stream.history(stage.block), stream.seed, self.current_epoch)
        unfinished = resumable(self, self._unfinished, stage, learner)
        if learner.is_trainable():
            with self._fresh_loops(learner, settings, stream.validates):
                super().fit(learner, datamodule=stream, ckpt_path=unfinished, weights_only=True)
        learner.end_stage()
        epochs = self.current_epoch - learner.first_epoch
        self.record.add_seconds(stage, time.monotonic() - started, epochs, self.epochs_of(settings), learner.recalls)
        system.student.backbone.settle(self.record.student_role() == "distilled")
        if stage.is_last_of_kind:
            self._measure(system, stream, MEASURED[stage.kind], stage.block)
        self.last_stage, self.stages_done = stage, self.stages_done + 1
        self._call("on_stage_end", system, stage)
        self.stage = None

    def epochs_of(self, settings: StageSettings) -> int:
        """Epochs of a stage at most."""
        return settings.max_epochs or self._epochs_of_a_stage

    @contextmanager
    def _fresh_loops(self, learner: Recommender, settings: StageSettings, validates: bool) -> Iterator[None]:
        """Let one more fit run on this Trainer: epochs and steps count on, whatever stops or watches a stage starts anew."""
        stage = learner.stage
        assert stage is not None
        epochs = self.epochs_of(settings)
        self.fit_loop.max_epochs = self.current_epoch + epochs
        self.should_stop = False
        is_judged = validates and settings.evaluate_every > 0
        added = stage_callbacks(stage, self.stages_done, learner.first_epoch, epochs, settings, is_judged)
        kept = list(self.callbacks)
        self.callbacks[:] = [*those_who_can_watch(kept, learner.role, is_judged), *added]
        try:
            yield
        finally:
            self.callbacks[:] = kept

    def _measure(self, system: CollaborativeDistillation, stream: ContinualDataModule, role: str, block: int) -> None:
        """Test a role on all the blocks so far, and on the next one if it is there."""
        stream.test_blocks = tuple(range(min(block + 2, len(stream.blocks))))
        stream.test_beside, system.evaluated = Split.VALID, (role,)
        super().test(system, datamodule=stream, verbose=False)
        self.record.add(role, block, system.test_results()[role], system.test_results(Split.VALID)[role])

    def _measure_missing(self, system: CollaborativeDistillation, stream: ContinualDataModule, block: int) -> None:
        """Roles that had no stage of their own in the block are measured as they stand."""
        for role in ("teacher", "student", "distilled"):
            if not self.record.has(role, block):
                self._measure(system, stream, role, block)

    @override
    def test(
        self,
        model: Any = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = True,
        datamodule: Any = None,
        weights_only: bool | None = None,
    ) -> Any:
        """Measure teacher system and student on learned blocks.

        Args:
            model: the student and its teachers.
            dataloaders: only for other modules.
            ckpt_path: ``last``, a run's folder or a stream checkpoint.
            verbose: print the metrics.
            datamodule: the stream.
            weights_only: only for other modules.
        """
        if isinstance(model, CollaborativeDistillation) and (ckpt_path is not None or self.last_stage is not None):
            self._get_ready_to_answer(model, datamodule, ckpt_path)
            model.check_cutoffs(datamodule.blocks)
            datamodule.test_blocks, datamodule.test_beside = tuple(range(self._first_block() + 1)), None
            model.evaluated = model.learned_roles()
            ckpt_path = None
        return super().test(model, dataloaders, ckpt_path, verbose, datamodule, weights_only)

    @override
    def predict(
        self,
        model: Any = None,
        dataloaders: Any = None,
        datamodule: Any = None,
        return_predictions: bool | None = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
        users: str | None = None,
    ) -> Any:
        """Recommend items to every user whom the student knows.

        Args:
            model: the student and its teachers.
            dataloaders: only for other modules.
            datamodule: the stream.
            return_predictions: only for other modules: score rows of all users would not fit into memory.
            ckpt_path: ``last``, a run's folder or a stream checkpoint.
            weights_only: only for other modules.
            users: Parquet, csv or tsv file whose column `user` names whom to recommend for; everybody by default.
        """
        if isinstance(model, CollaborativeDistillation) and (ckpt_path is not None or self.last_stage is not None):
            self._get_ready_to_answer(model, datamodule, ckpt_path)
            datamodule.choose_users(model.student.backbone.num_users, users)
            ckpt_path, return_predictions = None, False
        return super().predict(model, dataloaders, datamodule, return_predictions, ckpt_path, weights_only)

    def export(
        self,
        model: CollaborativeDistillation,
        datamodule: ContinualDataModule,
        ckpt_path: str | Path = "last",
        output: str | None = None,
        role: Role = "student",
        seen: bool = True,
    ) -> None:
        """Write the student as files that need no ccd-lightning.

        Args:
            model: the student and its teachers.
            datamodule: the stream.
            ckpt_path: ``last``, a run's folder or a stream checkpoint.
            output: folder to write; ``export`` in the run's folder by default, ``export_teacher`` for the teacher system.
            role: the student, or the fused teacher system.
            seen: also write what each user has interacted with, so that it can be left out of recommendations.
        """
        restore(self, model, self._check(datamodule), ckpt_path)
        if self.is_global_zero:
            export_system(model, datamodule.stream, Path(self.default_root_dir), output, role, seen)

    def _get_ready_to_answer(self, system: CollaborativeDistillation, stream: Any, ckpt_path: Any) -> None:
        """Load what was learned, unless this Trainer has just learned it."""
        restore(self, system, self._check(stream), ckpt_path)
        if ckpt_path is None:
            check_answers(self, system, stream)
        else:
            self._call("on_stream_restored", system)

    def stream_callbacks(self) -> list[StreamCallback]:
        """The callbacks that hear of blocks and stages."""
        return [callback for callback in self.callbacks if isinstance(callback, StreamCallback)]

    def _call(self, hook: str, *arguments: Any) -> None:
        with torch.no_grad():
            for callback in self.stream_callbacks():
                getattr(callback, hook)(self, *arguments)
