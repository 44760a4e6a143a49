"""Streams that go on, or are asked, in other circumstances than they were learned in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from typing_extensions import override

from ccd_lightning.backbones import BPRMF, MultVAE
from ccd_lightning.callbacks import Recommendations, StreamCheckpoint, StreamProgress
from ccd_lightning.checkpoint import unfinished_in
from ccd_lightning.data import BlockTable, ContinualDataModule
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.modules import CollaborativeDistillation, Student, Teacher
from ccd_lightning.plan import StreamPlan
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import Stage, StageSettings

from .conftest import RunStream, small_source, small_system


def parameters_of(system: CollaborativeDistillation) -> dict[str, torch.Tensor]:
    return {name: value for name, value in system.state_dict().items() if isinstance(value, torch.Tensor)}


def same(first: CollaborativeDistillation, second: CollaborativeDistillation) -> bool:
    ours, others = parameters_of(first), parameters_of(second)
    return ours.keys() == others.keys() and all(torch.equal(value, others[name]) for name, value in ours.items())


def new_trainer(folder: Path, *callbacks: Any, **options: Any) -> StreamTrainer:
    defaults = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    return StreamTrainer(**{**defaults, **options}, callbacks=list(callbacks), default_root_dir=folder)


class At(StreamCallback):
    """Does something when a stage begins."""

    def __init__(self, stage: str, deed: Any) -> None:
        self.stage, self.deed = stage, deed

    @override
    def on_stage_start(self, trainer: Any, system: CollaborativeDistillation, stage: Stage) -> None:
        if stage.name == self.stage:
            self.deed()


class Stubborn(StreamCallback):
    """Has a state that no checkpoint may hold."""

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"best": np.float64(0.25)}


def test_state_that_could_not_be_read_again_is_refused_before_it_is_saved(
    tmp_path: Path, run_stream: RunStream
) -> None:
    with pytest.raises(MisconfigurationException, match=r"`state_dict\(\)` of Stubborn could not be read .*numpy"):
        run_stream(tmp_path, callbacks=(Stubborn(),))
    assert not list(tmp_path.rglob("*"))


def test_system_that_keeps_what_could_not_be_read_again_is_refused_at_once(
    tmp_path: Path, run_stream: RunStream
) -> None:
    class Scaled(CollaborativeDistillation):
        def get_extra_state(self) -> Any:
            return {"scale": np.float64(0.5)}

        def set_extra_state(self, state: Any) -> None:
            self.scale = state["scale"]

    parts = small_system()
    with pytest.raises(MisconfigurationException, match=r"`state_dict\(\)` of Scaled could not be read .*numpy"):
        run_stream(tmp_path, Scaled(parts.student, parts.members(), ks=(5, 20)))


@pytest.mark.parametrize("ckpt_path", [None, "last"])
def test_second_process_in_a_folder_is_refused(tmp_path: Path, run_stream: RunStream, ckpt_path: str | None) -> None:
    seen: list[str] = []

    def second() -> None:
        with pytest.raises(
            MisconfigurationException, match=r"Another process works in .*: wait for it, or name another"
        ) as error:
            run_stream(tmp_path, ckpt_path=ckpt_path)
        seen.append(str(error.value))

    run_stream(tmp_path, callbacks=(At("block0-base-0", second),), source=small_source(blocks=1))
    assert len(seen) == 1


def test_jobs_that_write_nothing_share_a_folder(tmp_path: Path) -> None:
    stream = ContinualDataModule(small_source(blocks=1))
    done: list[int] = []

    def second() -> None:
        trainer = new_trainer(tmp_path)
        trainer.fit(small_system(), datamodule=ContinualDataModule(small_source(blocks=1)))
        done.append(trainer.stages_done)

    new_trainer(tmp_path, At("block0-base-0", second)).fit(small_system(), datamodule=stream)
    assert done == [3]


def test_mistyped_folder_to_go_on_in_is_not_made(tmp_path: Path, run_stream: RunStream) -> None:
    with pytest.raises(MisconfigurationException, match=r"There is no stream checkpoint in .*mistyped"):
        run_stream(tmp_path / "mistyped", ckpt_path="last")
    assert not list(tmp_path.iterdir())


def test_file_in_the_place_of_a_folder_is_refused(tmp_path: Path, run_stream: RunStream) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(
        MisconfigurationException, match=r"run is no folder to work in \(File exists\): name another one"
    ):
        run_stream(tmp_path / "run")


def test_what_was_just_learned_answers_without_a_checkpoint(tmp_path: Path) -> None:
    system, stream = small_system(), ContinualDataModule(small_source(blocks=2))
    recommendations = Recommendations()
    trainer = new_trainer(tmp_path, StreamCheckpoint(), recommendations)
    trainer.fit(system, datamodule=stream)
    trainer.predict(system, datamodule=stream)
    (written,) = tmp_path.glob("recommendations*.parquet")
    assert pl.read_parquet(written)["user"].n_unique() == system.student.backbone.num_users
    (measured,) = trainer.test(system, datamodule=stream, verbose=False)
    loaded = new_trainer(tmp_path)
    (expected,) = loaded.test(small_system(), datamodule=stream, ckpt_path="last", verbose=False)
    assert measured == expected
    assert {name.split("/")[1] for name in measured} == {"teacher", "student"}
    # For what it was not fitted on it does not answer.
    fewer, other = (
        ContinualDataModule(small_source(blocks=2), max_blocks=1),
        ContinualDataModule(small_source(2, seed=1)),
    )
    for asked, message in ((fewer, "has learned 2 blocks"), (other, "block 0 is not the one")):
        with pytest.raises((MisconfigurationException, ValueError), match=message):
            trainer.test(system, datamodule=asked, verbose=False)
    with pytest.raises(MisconfigurationException, match="blocks up to D1, but this system has not: pass the one"):
        trainer.predict(small_system(), datamodule=stream)


@pytest.mark.parametrize(
    "plan",
    [
        {"teacher_every": 2},
        {"cycle": ["student_update"]},
        {"cycle": ["teacher_update", "student_update"]},
        {"cycle": ["teacher_update", "distillation", "student_update"]},
    ],
)
def test_block_that_is_learned_is_not_learned_again_by_another_plan(
    tmp_path: Path, run_stream: RunStream, capsys: pytest.CaptureFixture[str], plan: dict[str, Any]
) -> None:
    first, learned = run_stream(tmp_path, source=small_source(blocks=2))
    names = [stage["name"] for stage in first.record.stages]
    progress = StreamProgress()
    again, system = run_stream(
        tmp_path, source=small_source(blocks=2), ckpt_path="last", plan=StreamPlan(**plan), callbacks=(progress,)
    )
    stages = sum(len(list(StreamPlan(**plan).stages(block, 2))) for block in range(2))
    assert f"0 of {stages} stages to go" in capsys.readouterr().out
    assert [stage["name"] for stage in again.record.stages] == names
    assert same(learned, system)
    more, _ = run_stream(tmp_path, source=small_source(blocks=3), ckpt_path="last", plan=StreamPlan(**plan))
    added = [stage["name"] for stage in more.record.stages][len(names) :]
    assert added == [stage.name for stage in StreamPlan(**plan).stages(2, 2)]


def test_sanity_checks_before_a_stage_change_nothing(tmp_path: Path, run_stream: RunStream) -> None:
    stages = {"base", "student_update", "teacher_update"}
    plan = StreamPlan(**{name: StageSettings(max_epochs=4, evaluate_every=1) for name in stages})
    systems = [
        run_stream(tmp_path / str(steps), source=small_source(blocks=2), plan=plan, num_sanity_val_steps=steps)
        for steps in (0, 1)
    ]
    assert same(*(system for _, system in systems))
    recalls = [[stage["recalls"] for stage in trainer.record.stages] for trainer, _ in systems]
    assert recalls[0] == recalls[1]


def test_gradients_are_clipped_in_mixed_precision_too(tmp_path: Path, run_stream: RunStream) -> None:
    options: dict[str, Any] = {"source": small_source(blocks=1), "precision": "bf16-mixed"}
    _, clipped = run_stream(tmp_path / "clipped", gradient_clip_val=1e-4, **options)
    _, free = run_stream(tmp_path / "free", **options)
    assert not same(clipped, free)


def table_of(path: Path, swap: bool = False) -> Path:
    """The small stream as a table; with two train items of a user of D_1 exchanged for items that others have there."""
    table = small_source(blocks=2).table()
    if swap:
        train = (pl.col("block") == 1) & (pl.col("split") == "train")
        later = table.with_row_index("row").filter(train)
        first, last = later["row"][0], later["row"][-1]
        items = table["item"].to_list()
        items[first], items[last] = items[last], items[first]
        table = table.with_columns(pl.Series("item", items))
    table.write_parquet(path)
    return path


def test_stage_does_not_go_on_with_other_data_than_it_began_with(tmp_path: Path, run_stream: RunStream) -> None:
    class Stop(StreamCallback):
        @override
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if pl_module.stage.name == "block1-student_update" and pl_module.stage_epoch == 1:
                raise RuntimeError("killed")

    options: dict[str, Any] = {"max_epochs": 3, "every_seconds": 0.0}
    source = BlockTable(str(table_of(tmp_path / "stream.parquet")))
    with pytest.raises(RuntimeError, match="killed"):
        run_stream(tmp_path / "run", source=source, callbacks=(Stop(),), **options)
    assert unfinished_in(tmp_path / "run")
    table_of(tmp_path / "stream.parquet", swap=True)
    changed = BlockTable(str(tmp_path / "stream.parquet"))
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    for path in unfinished_in(tmp_path / "whole"):
        path.unlink()
    with pytest.warns(
        UserWarning, match="data of block 1 have changed since .*: the stage block1-student_update begins anew"
    ):
        _, anew = run_stream(tmp_path / "run", source=changed, ckpt_path="last", **options)
    _, expected = run_stream(tmp_path / "whole", source=changed, ckpt_path="last", **options)
    assert same(anew, expected)
    # What a finished stage has learned must stay.
    table_of(tmp_path / "stream.parquet")
    with pytest.raises(ValueError, match="block 1 is not the one the run was trained on"):
        run_stream(tmp_path / "run", source=source, ckpt_path="last", **options)


def test_fewer_blocks_than_were_learned_are_refused(tmp_path: Path, run_stream: RunStream) -> None:
    run_stream(tmp_path, source=small_source(blocks=2))
    stream = ContinualDataModule(small_source(blocks=2), max_blocks=1)
    for ask in ("fit", "test", "predict"):
        with pytest.raises(
            MisconfigurationException, match=r"has learned 2 blocks, but `data.max_blocks` is 1: pass that"
        ):
            getattr(new_trainer(tmp_path), ask)(small_system(), datamodule=stream, ckpt_path="last")


def test_other_cutoffs_are_refused_before_anything_is_learned(tmp_path: Path, run_stream: RunStream) -> None:
    trainer, _ = run_stream(tmp_path, source=small_source(blocks=2))
    other = CollaborativeDistillation(small_system().student, small_system().members(), ks=(5, 10))
    with pytest.raises(MisconfigurationException, match=r"`model.ks` is \[5, 10\], but .* with \[5, 20\] so far"):
        run_stream(tmp_path, other, source=small_source(blocks=3), ckpt_path="last")
    assert json.dumps(trainer.record.summary()["student"], sort_keys=True)
    # Asking is no learning.
    (measured,) = new_trainer(tmp_path).test(
        other, datamodule=ContinualDataModule(small_source(blocks=2)), ckpt_path="last", verbose=False
    )
    assert any("@10" in name for name in measured)


def test_parameters_are_read_in_the_precision_of_the_model(tmp_path: Path) -> None:
    saved, present = BPRMF(3).to(torch.bfloat16), BPRMF(3)
    saved.grow(4, 5, torch.Generator().manual_seed(0))
    present.load_state_dict(saved.state_dict())
    assert {value.dtype for value in present.parameters()} == {torch.float32}
    assert torch.equal(present.user_embedding, saved.user_embedding.float())


def test_auto_encoder_learns_in_half_precision(tmp_path: Path, run_stream: RunStream) -> None:
    system = CollaborativeDistillation(Student(BPRMF(4)), [Teacher(MultVAE(4)), Teacher(BPRMF(4))], ks=(5, 20))
    run_stream(tmp_path, system, source=small_source(blocks=2), precision="bf16-true")
    values = [value for value in system.teachers.parameters() if value.is_floating_point()]
    assert {value.dtype for value in values} == {torch.bfloat16}
    assert all(bool(value.isfinite().all()) for value in values)


def test_stream_goes_on_where_a_new_id_turns_a_column_into_text(tmp_path: Path, run_stream: RunStream) -> None:
    table = small_source(blocks=3).table()
    path = tmp_path / "stream.csv"
    table.filter(pl.col("block") < 2).write_csv(path)
    run_stream(tmp_path / "run", source=BlockTable(path), max_epochs=1)
    known = table.filter(pl.col("block") < 2)["user"]
    stranger = table.filter(pl.col("block") == 2, ~pl.col("user").is_in(known.implode()))["user"][0]
    names = pl.when(pl.col("user") == stranger).then(pl.lit("007")).otherwise(pl.col("user").cast(pl.String))
    table.with_columns(names.alias("user")).write_csv(path)
    trainer, _ = run_stream(tmp_path / "run", source=BlockTable(path), max_epochs=1, ckpt_path="last")
    assert trainer.record.has("distilled", 2) and "007" in set(trainer.stream.stream.users.raw)
