"""A Trainer that fits a stream: one Lightning fit for each (block, stage)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from typing_extensions import override

from ccd_lightning.checkpoint import find_checkpoint, read_checkpoint, stage_from_state, stage_to_state
from ccd_lightning.data import ContinualDataModule, check_same_blocks
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.modules import MONITOR, CollaborativeDistillation, Recommender
from ccd_lightning.plan import StreamPlan
from ccd_lightning.record import StreamRecord
from ccd_lightning.stage_callbacks import BestState, EvaluationClock
from ccd_lightning.types import Stage, StageKind, StageSettings

MEASURED = {
    StageKind.BASE: ("teacher",),
    StageKind.TEACHER_UPDATE: ("teacher",),
    StageKind.STUDENT_UPDATE: ("student",),
    StageKind.DISTILLATION: ("distilled",),
}
"""Who is measured on all blocks so far when the last stage of a kind ends."""


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
        super().__init__(
            max_epochs=max_epochs,
            enable_checkpointing=enable_checkpointing,
            enable_model_summary=enable_model_summary,
            num_sanity_val_steps=num_sanity_val_steps,
            reload_dataloaders_every_n_epochs=reload_dataloaders_every_n_epochs,
            use_distributed_sampler=use_distributed_sampler,
            **kwargs,
        )
        self.plan = plan if plan is not None else StreamPlan()
        self.record = StreamRecord()
        self.stage: Stage | None = None
        self.last_stage: Stage | None = None
        self.stages_done = 0
        self._epochs_of_a_stage = max_epochs
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
        """Learn every block of the stream that is not learned yet.

        Args:
            model: the student and its teachers; any other LightningModule is fitted as by Lightning's own Trainer.
            train_dataloaders: only for other modules.
            val_dataloaders: only for other modules.
            datamodule: the stream.
            ckpt_path: ``last``, a run's folder or a stream checkpoint to go on from; ``None`` begins the stream.
            weights_only: only for other modules; stream checkpoints are always read with ``weights_only=True``.

        Raises:
            MisconfigurationException: if the datamodule is missing, a launcher spawns processes, or the checkpoint does not fit.
        """
        if not isinstance(model, CollaborativeDistillation):
            super().fit(model, train_dataloaders, val_dataloaders, datamodule, ckpt_path, weights_only)
            return
        stream = self.stream = self._check(datamodule)
        self._restore(model, stream, ckpt_path)
        self._call("on_stream_start", model)
        for block in stream.blocks[self._first_block() :]:
            stages = list(self.plan.stages(block.index, len(model.members())))
            remaining = self._after_last(stages)
            if remaining is stages:
                self._call("on_block_start", model, block)
            for stage in remaining:
                self._learn_stage(model, stream, stage)
            self._measure_missing(model, stream, block.index)
            self._call("on_block_end", model, block)
        self._call("on_stream_end", model)

    def _check(self, datamodule: ContinualDataModule | None) -> ContinualDataModule:
        if not isinstance(datamodule, ContinualDataModule):
            raise MisconfigurationException(
                f"A stream is fitted on a ContinualDataModule, but `datamodule` is {type(datamodule).__name__}: pass one."
            )
        if getattr(self.strategy, "_start_method", "popen") != "popen":
            raise MisconfigurationException(
                "The strategy starts its processes by spawn or fork, and what callbacks keep between stages would stay in the"
                " children: use `--trainer.strategy ddp` instead."
            )
        return datamodule

    def _first_block(self) -> int:
        return 0 if self.last_stage is None else self.last_stage.block

    def _after_last(self, stages: list[Stage]) -> list[Stage]:
        """The stages of a block that are not done; the same list if none of them is."""
        if self.last_stage not in stages:
            return stages
        return stages[stages.index(self.last_stage) + 1 :]

    def _learn_stage(self, system: CollaborativeDistillation, stream: ContinualDataModule, stage: Stage) -> None:
        started = time.monotonic()
        settings = self.plan.settings(stage.kind)
        system.to(self.strategy.root_device)
        self.stage = stage
        stream.valid_blocks = tuple(range(stage.block + 1)) if settings.monitor_seen else (stage.block,)
        self._call("on_stage_start", system, stage)
        learner = system.learner(stage)
        learner.begin_stage(stage, settings, stream.history(stage.block), stream.seed, self.current_epoch)
        with self._fresh_loops(learner, settings):
            super().fit(learner, datamodule=stream)
        learner.end_stage()
        self.record.add_seconds(stage, time.monotonic() - started)
        if stage.is_last_of_kind:
            for role in MEASURED[stage.kind]:
                self._measure(system, stream, role, stage.block)
        self.last_stage = stage
        self.stages_done += 1
        self._call("on_stage_end", system, stage)
        self.stage = None

    @contextmanager
    def _fresh_loops(self, learner: Recommender, settings: StageSettings) -> Iterator[None]:
        """Let one more fit run on this Trainer: epochs and steps count on, whatever stops or watches a stage starts anew."""
        epochs = settings.max_epochs or self._epochs_of_a_stage
        self.fit_loop.max_epochs = self.current_epoch + epochs
        self.should_stop = False
        clock = EvaluationClock(learner.first_epoch, epochs, settings.evaluate_every)
        added: list[Callback] = [clock]
        if settings.evaluate_every:
            stop = EarlyStopping(MONITOR, patience=settings.patience, mode="max", check_on_train_epoch_end=False)
            added += [stop, BestState(MONITOR)]
        kept = list(self.callbacks)
        self.callbacks.extend(added)
        try:
            yield
        finally:
            self.callbacks[:] = kept

    def _measure(self, system: CollaborativeDistillation, stream: ContinualDataModule, role: str, block: int) -> None:
        """Test a role on all the blocks so far, and on the next one if it is there."""
        stream.test_blocks = tuple(range(min(block + 2, len(stream.blocks))))
        system.evaluated = (role,)
        super().test(system, datamodule=stream, verbose=False)
        self.record.add(role, block, system.test_results()[role])

    def _measure_missing(self, system: CollaborativeDistillation, stream: ContinualDataModule, block: int) -> None:
        """Roles that had no stage of their own in the block are measured as they stand."""
        for role in ("teacher", "student", "distilled"):
            if not self.record.has(role, block):
                self._measure(system, stream, role, block)

    @override
    def test(self, model: Any = None, dataloaders: Any = None, ckpt_path: Any = None, verbose: bool = True, datamodule: Any = None, weights_only: bool | None = None) -> Any:  # type: ignore[override]
        """Measure teacher system and student on every block that the checkpoint has learned."""
        if isinstance(model, CollaborativeDistillation) and ckpt_path is not None:
            self._restore(model, self._check(datamodule), ckpt_path)
            datamodule.test_blocks = tuple(range(self._first_block() + 1))
            model.evaluated = ("teacher", "student")
            ckpt_path = None
        return super().test(model, dataloaders, ckpt_path, verbose, datamodule, weights_only)

    @override
    def predict(self, model: Any = None, dataloaders: Any = None, datamodule: Any = None, return_predictions: bool | None = None, ckpt_path: Any = None, weights_only: bool | None = None) -> Any:  # type: ignore[override]
        """Score all users that the checkpoint's student knows; a callback writes the recommendations."""
        if isinstance(model, CollaborativeDistillation) and ckpt_path is not None:
            self._restore(model, self._check(datamodule), ckpt_path)
            datamodule.predict_users = model.student.backbone.num_users
            ckpt_path, return_predictions = None, False
        return super().predict(model, dataloaders, datamodule, return_predictions, ckpt_path, weights_only)

    def stream_state(self, system: CollaborativeDistillation, stream: ContinualDataModule) -> dict[str, Any]:
        """Everything that the next stage needs, as tensors and plain values."""
        assert self.last_stage is not None
        return {
            "stage": stage_to_state(self.last_stage),
            "stages_done": self.stages_done,
            "system": system.state_dict(),
            "record": self.record.state_dict(),
            "fingerprints": [block.fingerprint for block in stream.blocks[: self.last_stage.block + 1]],
            "callbacks": {callback.state_key: callback.state_dict() for callback in self._stream_callbacks()},
            "loops": self.fit_loop.state_dict(),
        }

    def _restore(
        self, system: CollaborativeDistillation, stream: ContinualDataModule, ckpt_path: str | Path | None
    ) -> None:
        if ckpt_path is None:
            return
        path = find_checkpoint(ckpt_path, Path(self.default_root_dir))
        state = read_checkpoint(path)
        check_same_blocks(state["fingerprints"], stream.stream, stream.source.describe())
        try:
            system.load_state_dict(state["system"])
        except (RuntimeError, KeyError) as error:
            raise MisconfigurationException(
                f"{path} was written by another model than the configured one ({str(error).splitlines()[-1].strip()}): pass the"
                " configuration that stands beside it."
            ) from error
        for backbone in [model.backbone for model in (system.student, *system.members())] + [
            system.proxy(name) for name in system.proxies
        ]:
            if backbone.known_block >= 0:
                backbone.observe(stream.history(backbone.known_block))
        self.record.load_state_dict(state["record"])
        self.last_stage = stage_from_state(state["stage"])
        self.stages_done = state["stages_done"]
        for callback in self._stream_callbacks():
            if callback.state_key in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][callback.state_key])
        self.fit_loop.load_state_dict(state["loops"])
        self.fit_loop.restarting = False

    def _stream_callbacks(self) -> list[StreamCallback]:
        return [callback for callback in self.callbacks if isinstance(callback, StreamCallback)]

    def _call(self, hook: str, *arguments: Any) -> None:
        with torch.no_grad():
            for callback in self._stream_callbacks():
                getattr(callback, hook)(self, *arguments)
