"""The stream as a whole: stages, loops, resumption."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ccd_lightning.backbones import BPRMF, LightGCN, MultVAE
from ccd_lightning.callbacks import DistillationCallback, GenerationSettings, GraphSettings
from ccd_lightning.checkpoint import checkpoints_in, read_checkpoint, unfinished_in
from ccd_lightning.data import ContinualDataModule
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.modules import MONITOR, CollaborativeDistillation, Student, Teacher
from ccd_lightning.plan import StreamPlan
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import StageSettings

from .conftest import RunStream, small_source, small_system


class Recorder(StreamCallback):
    """Notes every hook, and dies at a chosen stage."""

    def __init__(self, die_after: str = "") -> None:
        self.calls: list[str] = []
        self.steps: list[tuple[int, int]] = []
        self.die_after = die_after

    def on_block_start(self, trainer: Any, system: Any, block: Any) -> None:
        self.calls.append(f"start {block.index}")

    def on_block_end(self, trainer: Any, system: Any, block: Any) -> None:
        self.calls.append(f"end {block.index}")

    def on_stage_end(self, trainer: Any, system: Any, stage: Any) -> None:
        self.calls.append(stage.name)
        self.steps.append((trainer.current_epoch, trainer.global_step))
        if stage.name == self.die_after:
            raise RuntimeError("CRASH")


STAGES = [
    "start 0", "block0-base-0", "block0-base-1", "block0-distillation", "end 0",
    "start 1", "block1-student_update", "block1-teacher_update-0", "block1-teacher_update-1", "block1-distillation", "end 1",
    "start 2", "block2-student_update", "block2-teacher_update-0", "block2-teacher_update-1", "block2-distillation", "end 2",
]  # fmt: skip


def test_stream_calls_hooks_in_the_order_of_the_paper(tmp_path: Path, run_stream: RunStream) -> None:
    recorder = Recorder()
    run_stream(tmp_path, callbacks=(recorder,))
    assert recorder.calls == STAGES


def test_stream_counts_epochs_and_steps_over_all_stages(tmp_path: Path, run_stream: RunStream) -> None:
    recorder = Recorder()
    _trainer, _ = run_stream(tmp_path, callbacks=(recorder,))
    assert [epoch for epoch, _ in recorder.steps] == [2 * (stage + 1) for stage in range(11)]
    steps = [step for _, step in recorder.steps]
    assert steps == sorted(steps)
    assert len(set(steps)) == 11


def test_loggers_see_one_monotonic_step(tmp_path: Path, run_stream: RunStream) -> None:
    class Steps(DummyLogger):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[int] = []
            self.names: set[str] = set()

        def log_metrics(self, metrics: dict[str, float], step: int) -> None:  # type: ignore[override]
            self.seen.append(step)
            self.names |= set(metrics)

    steps = Steps()
    run_stream(tmp_path, logger=steps)
    assert steps.seen == sorted(steps.seen)
    assert len(set(steps.seen)) > 10
    assert {"student/loss/replay", "teacher0/loss/own", "teacher1/valid/recall@20"} <= steps.names


def test_record_has_one_row_a_block_for_every_role(tmp_path: Path, run_stream: RunStream) -> None:
    trainer, _ = run_stream(tmp_path)
    summary = trainer.record.summary()
    for role in ("teacher", "student", "distilled"):
        found = summary[role]["recall@20"]
        assert [len(row) for row in found["A"]] == [1, 2, 3]
        learned = [sum(found["A"][j][j] for j in range(k + 1)) / (k + 1) for k in range(3)]
        retained = [sum(found["A"][k]) / (k + 1) for k in range(3)]
        assert found["LA"] == pytest.approx(learned, abs=1e-12)
        assert found["RA"] == pytest.approx(retained, abs=1e-12)
        assert found["H"] == pytest.approx(
            [2 * a * b / (a + b) for a, b in zip(learned, retained, strict=True)], abs=1e-12
        )
    assert summary["student"]["recall@20"]["A"][0] == summary["distilled"]["recall@20"]["A"][0]


@pytest.mark.parametrize("crash_at", [name for name in STAGES if name.startswith("block")])
def test_stream_resume_matches_uninterrupted_run(tmp_path: Path, run_stream: RunStream, crash_at: str) -> None:
    expected_trainer, expected = run_stream(tmp_path / "full")
    with pytest.raises(RuntimeError, match="CRASH"):
        run_stream(tmp_path / "cut", callbacks=(Recorder(die_after=crash_at),))
    trainer, resumed = run_stream(tmp_path / "cut", ckpt_path="last")
    assert_same(expected, resumed)
    assert what_counts(trainer) == what_counts(expected_trainer)
    assert trainer.current_epoch == expected_trainer.current_epoch
    assert trainer.global_step == expected_trainer.global_step


def test_stream_goes_on_with_new_blocks_alone(tmp_path: Path, run_stream: RunStream) -> None:
    run_stream(tmp_path, source=small_source(blocks=2))
    recorder = Recorder()
    _trainer, system = run_stream(tmp_path, source=small_source(blocks=3), ckpt_path="last", callbacks=(recorder,))
    # The end of a block is told again, since a killed run may have missed it.
    assert recorder.calls == ["end 1", *STAGES[STAGES.index("start 2") :]]
    assert system.student.backbone.known_block == 2


def test_stream_refuses_changed_blocks(tmp_path: Path, run_stream: RunStream) -> None:
    run_stream(tmp_path, source=small_source(blocks=2))
    with pytest.raises(ValueError, match="block 0"):
        run_stream(tmp_path, source=small_source(blocks=2, seed=5), ckpt_path="last")


def test_stream_refuses_a_checkpoint_of_another_model(tmp_path: Path, run_stream: RunStream) -> None:
    run_stream(tmp_path, source=small_source(blocks=1))
    with pytest.raises(MisconfigurationException, match="another model"):
        run_stream(tmp_path, system=small_system(student=BPRMF(6)), source=small_source(blocks=1), ckpt_path="last")


def test_stream_refuses_resume_without_checkpoint(tmp_path: Path, run_stream: RunStream) -> None:
    with pytest.raises(MisconfigurationException, match="no stream checkpoint"):
        run_stream(tmp_path, ckpt_path="last")


def test_same_seed_same_result_other_seed_other_result(tmp_path: Path, run_stream: RunStream) -> None:
    runs = [run_stream(tmp_path / str(index), seed=seed)[1].state_dict() for index, seed in enumerate((0, 0, 1))]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not torch.equal(runs[0]["student.backbone.item_embedding"], runs[2]["student.backbone.item_embedding"])


def test_teachers_of_different_kinds_learn_together(tmp_path: Path, run_stream: RunStream) -> None:
    teachers = [BPRMF(8), MultVAE(8), MultVAE(8)]
    trainer, system = run_stream(tmp_path, system=small_system(teachers))
    curve = trainer.record.summary()["teacher"]["recall@20"]["H"]
    assert all(math.isfinite(value) and value > 0 for value in curve)
    assert {teacher.backbone.known_block for teacher in system.members()} == {2}


def test_teacher_cycle_leaves_out_blocks(tmp_path: Path, run_stream: RunStream) -> None:
    recorder = Recorder()
    trainer, _system = run_stream(tmp_path, callbacks=(recorder,), plan=StreamPlan(teacher_every=2))
    assert [name for name in recorder.calls if name.startswith("block1")] == ["block1-student_update"]
    assert [name for name in recorder.calls if name.startswith("block2")][-1] == "block2-distillation"
    unknown = trainer.record.users["teacher"][1][1]["unknown_users"]
    block = trainer.stream.blocks[1]
    assert unknown == int((block.test.users.unique() >= block.num_old_users).sum()) > 0


def test_stage_returns_to_its_best_evaluation(tmp_path: Path, run_stream: RunStream) -> None:
    class Watch(StreamCallback):
        def __init__(self) -> None:
            self.seen: list[float] = []
            self.final = 0.0

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            if pl_module.stage.name == "block0-base-0" and trainer.state.fn == "fit":
                self.seen.append(float(trainer.callback_metrics["valid/recall@20"]))

        def on_stage_end(self, trainer: Any, system: Any, stage: Any) -> None:
            if stage.name == "block0-base-0":
                metrics = StreamTrainer(
                    accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
                ).validate(system.teachers[0], datamodule=ContinualDataModule(small_source()), verbose=False)
                self.final = metrics[0]["teacher0/valid/recall@20"]

    watch = Watch()
    plan = StreamPlan(
        base=StageSettings(max_epochs=30, learning_rate=0.05, batch_size=256, evaluate_every=1, patience=3)
    )
    run_stream(tmp_path, callbacks=(watch,), plan=plan, source=small_source(blocks=1))
    assert len(watch.seen) < 30
    assert watch.final == pytest.approx(max(watch.seen), abs=1e-6)


def test_checkpoints_are_pruned_but_the_last_of_each_block_stays(tmp_path: Path, run_stream: RunStream) -> None:
    run_stream(tmp_path)
    names = [path.name for path in checkpoints_in(tmp_path)]
    assert names == [
        "00003-block0-distillation.ckpt",
        "00007-block1-distillation.ckpt",
        "00010-block2-teacher_update-1.ckpt",
        "00011-block2-distillation.ckpt",
    ]
    assert not list(tmp_path.rglob("*.tmp"))


def test_checkpoint_holds_nothing_that_can_be_executed(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"version": 1, "system": Payload()}, tmp_path / "bad.ckpt")
    with pytest.raises(MisconfigurationException, match="cannot be read as a stream checkpoint"):
        read_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "ran").exists()


def test_fit_asks_for_a_datamodule(tmp_path: Path) -> None:
    trainer = StreamTrainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    with pytest.raises(MisconfigurationException, match="ContinualDataModule"):
        trainer.fit(small_system())


class DieWithin(StreamCallback):
    """Dies in a stage, at the start of an epoch, as a killed process would: without a word."""

    def __init__(self, stage: str, epoch: int) -> None:
        self.stage, self.epoch = stage, epoch

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if pl_module.stage.name == self.stage and pl_module.stage_epoch == self.epoch:
            raise RuntimeError("CRASH")


LONGER = StreamPlan(
    **{
        kind: StageSettings(max_epochs=4, learning_rate=0.01, batch_size=512, evaluate_every=every, patience=4)
        for kind, every in (
            ("base", 1),
            ("first_distillation", 0),
            ("distillation", 2),
            ("student_update", 1),
            ("teacher_update", 2),
        )
    }
)


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize(
    "stage",
    ["block0-base-0", "block0-distillation", "block1-student_update", "block1-teacher_update-1", "block1-distillation"],
)
def test_stream_resumes_within_a_stage_bit_for_bit(
    tmp_path: Path, run_stream: RunStream, stage: str, epoch: int
) -> None:
    def settings() -> dict[str, Any]:
        graph = GraphSettings(weight=1.0, sample=20)
        return {
            "system": CollaborativeDistillation(
                Student(LightGCN(4)), [Teacher(BPRMF(8), clusters=3), Teacher(MultVAE(8))], ks=(20,)
            ),
            "distillation": DistillationCallback(graph=graph, generation=GenerationSettings(sample=20)),
            "source": small_source(blocks=2),
            "plan": LONGER,
            "every_seconds": 0.0,
        }

    expected_trainer, expected = run_stream(tmp_path / "full", **settings())
    with pytest.raises(RuntimeError, match="CRASH"):
        run_stream(tmp_path / "cut", callbacks=(DieWithin(stage, epoch),), **settings())
    assert len(list((tmp_path / "cut" / "checkpoints").glob("*.part"))) == 1
    trainer, resumed = run_stream(tmp_path / "cut", ckpt_path="last", **settings())
    assert_same(expected, resumed)
    assert (trainer.current_epoch, trainer.global_step) == (
        expected_trainer.current_epoch,
        expected_trainer.global_step,
    )
    assert what_counts(trainer) == what_counts(expected_trainer)


def what_counts(trainer: StreamTrainer) -> dict[str, Any]:
    """The record without times, and without how often the run was stopped."""
    state = trainer.record.state_dict()
    stages = [{name: value for name, value in stage.items() if name != "seconds"} for stage in state["stages"]]
    return {**state, "stages": stages, "seconds": 0, "peak_bytes": 0, "events": []}


def assert_same(expected: CollaborativeDistillation, found: CollaborativeDistillation) -> None:
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, found.state_dict()[name]), name


def test_a_torn_checkpoint_falls_back_to_the_one_before(tmp_path: Path, run_stream: RunStream) -> None:
    _, expected = run_stream(tmp_path)
    newest = checkpoints_in(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="Going on from 00010-block2-teacher_update-1.ckpt"):
        _, resumed = run_stream(tmp_path, ckpt_path="last")
    assert_same(expected, resumed)


def test_nan_names_stage_objective_and_batch_and_leaves_the_last_checkpoint(
    tmp_path: Path, run_stream: RunStream
) -> None:
    class Poison(StreamCallback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if pl_module.stage.name == "block1-student_update" and batch_idx == 2:
                with torch.no_grad():
                    pl_module.backbone.item_embedding.fill_(float("nan"))

    with pytest.raises(
        MisconfigurationException, match=r"block1-student_update: .*`own` of student .*batch 2 of epoch 0"
    ):
        run_stream(tmp_path, callbacks=(Poison(),), plan=StreamPlan(student_update=StageSettings(batch_size=50)))
    state = read_checkpoint(checkpoints_in(tmp_path)[-1])["system"]
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())
    assert not list((tmp_path / "checkpoints").glob("*.part"))


def test_early_stopping_of_the_user_judges_each_stage_by_itself(tmp_path: Path, run_stream: RunStream) -> None:
    """Nothing is ever better by 1, so every stage stops after its third evaluation, whatever stages before it have reached."""
    stop = EarlyStopping(MONITOR, min_delta=1.0, patience=2, mode="max")
    settings = StageSettings(evaluate_every=1, patience=9)
    kinds = ("base", "first_distillation", "student_update", "teacher_update", "distillation")
    plan = StreamPlan(**dict.fromkeys(kinds, settings))
    trainer, _ = run_stream(tmp_path, source=small_source(blocks=2), callbacks=(stop,), max_epochs=5, plan=plan)
    assert [stage["epochs"] for stage in trainer.record.stages] == [3] * 7


def test_callbacks_that_watch_one_model_stay_away_from_the_others(tmp_path: Path, run_stream: RunStream) -> None:
    stop = EarlyStopping("teacher1/valid/recall@20", min_delta=1.0, patience=1, mode="max")
    best = ModelCheckpoint(tmp_path / "own", monitor="student/valid/recall@20", mode="max", save_top_k=-1)
    settings = StageSettings(evaluate_every=1, patience=9)
    kinds = ("base", "first_distillation", "student_update", "teacher_update", "distillation")
    trainer, _ = run_stream(
        tmp_path,
        source=small_source(blocks=2),
        callbacks=(stop, best),
        max_epochs=3,
        plan=StreamPlan(**dict.fromkeys(kinds, settings)),
        enable_checkpointing=True,
    )
    stages = trainer.record.stages
    assert {stage["name"] for stage in stages if stage["epochs"] == 2} == {"block0-base-1", "block1-teacher_update-1"}
    assert {stage["epochs"] for stage in stages} == {2, 3}
    of_student = sum(stage["teacher"] is None for stage in stages)
    assert len(list((tmp_path / "own").glob("*.ckpt"))) == 3 * of_student > 0


class Counted(Callback):
    """Counts epochs, and says so in its state."""

    def __init__(self) -> None:
        self.epochs = 0

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.epochs += 1

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = state_dict["epochs"]


def test_callbacks_of_lightnings_kind_go_on_with_what_they_knew(tmp_path: Path, run_stream: RunStream) -> None:
    class Cut(StreamCallback):
        def on_block_start(self, trainer: Any, system: Any, block: Any) -> None:
            if block.index == 1:
                raise RuntimeError("CUT")

    before, after, straight = Counted(), Counted(), Counted()
    with pytest.raises(RuntimeError, match="CUT"):
        run_stream(tmp_path / "cut", callbacks=(before, Cut()))
    run_stream(tmp_path / "cut", callbacks=(after,), ckpt_path="last")
    run_stream(tmp_path / "whole", callbacks=(straight,))
    assert 0 < before.epochs < after.epochs == straight.epochs


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (
            StochasticWeightAveraging(0.1),
            "The callback StochasticWeightAveraging averages the weights of one model over one fit",
        ),
        (EMAWeightAveraging(), "The callback EMAWeightAveraging averages the weights of one model over one fit"),
        (GradientAccumulationScheduler({0: 2}), "GradientAccumulationScheduler counts epochs over the whole stream"),
    ],
)
def test_callbacks_that_plan_a_single_fit_are_refused(
    callback: Callback, message: str, tmp_path: Path, run_stream: RunStream
) -> None:
    with pytest.raises(MisconfigurationException, match=f"{message}.*leave it out, and use"):
        run_stream(tmp_path, callbacks=(callback,))
    assert not list(tmp_path.iterdir())


def test_watching_a_model_that_is_not_there_is_refused(tmp_path: Path, run_stream: RunStream) -> None:
    stop = EarlyStopping(f"teacher7/{MONITOR}", mode="max")
    message = f"EarlyStopping watches `teacher7/{MONITOR}`, but the models are student, teacher0, teacher1: .* watch `{MONITOR}`"
    with pytest.raises(MisconfigurationException, match=message):
        run_stream(tmp_path, callbacks=(stop,))
    assert not list(tmp_path.iterdir())


def test_stage_goes_on_with_the_patience_that_the_user_gave(tmp_path: Path, run_stream: RunStream) -> None:
    """An `EarlyStopping` of the user's watches what the stage's own does, and has a state of its own beside it."""

    class Cut(StreamCallback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                raise RuntimeError("CUT")

    def stop() -> EarlyStopping:
        return EarlyStopping(MONITOR, min_delta=0.5, patience=50, mode="max")

    options: dict[str, Any] = {"source": small_source(blocks=1), "max_epochs": 3, "every_seconds": 0.0}
    options["plan"] = StreamPlan(base=StageSettings(evaluate_every=1, patience=2))
    with pytest.raises(RuntimeError, match="CUT"):
        run_stream(tmp_path, callbacks=(stop(), Cut()), **options)
    assert unfinished_in(tmp_path)
    resumed = stop()
    run_stream(tmp_path, callbacks=(resumed,), ckpt_path="last", **options)
    assert resumed.patience == 50


def test_skipped_blocks_stay_with_models_of_one_block_over_a_resumption(tmp_path: Path, run_stream: RunStream) -> None:
    def system() -> CollaborativeDistillation:
        return small_system([LightGCN(8, graph="block"), MultVAE(4, history="block")], LightGCN(4, graph="block"))

    plan = StreamPlan(teacher_every=2)
    expected_trainer, expected = run_stream(tmp_path / "full", system(), plan=plan)
    with pytest.raises(RuntimeError, match="CRASH"):
        run_stream(tmp_path / "cut", system(), plan=plan, callbacks=(Recorder(die_after="block2-teacher_update-1"),))
    trainer, resumed = run_stream(tmp_path / "cut", system(), plan=plan, ckpt_path="last")
    assert_same(expected, resumed)
    assert what_counts(trainer) == what_counts(expected_trainer)
