"""A stream remembers where it did not go straight on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from ccd_lightning.callbacks import StreamReport
from ccd_lightning.checkpoint import checkpoints_in, unfinished_in
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.modules import Recommender
from ccd_lightning.plan import StreamPlan
from ccd_lightning.record import StreamRecord
from ccd_lightning.types import StageSettings

from .conftest import RunStream, small_source


class Strike(StreamCallback):
    """Fails at the end of an epoch of a stage, behind what saves it."""

    def __init__(self, stage: str, epoch: int) -> None:
        self.stage, self.epoch = stage, epoch

    @override
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        assert isinstance(pl_module, Recommender) and pl_module.stage is not None
        if (pl_module.stage.name, pl_module.stage_epoch) == (self.stage, self.epoch):
            raise RuntimeError("STRUCK")


def strike(run_stream: RunStream, folder: Path, stage: str, epoch: int, **options: Any) -> None:
    parts = (StreamReport(figures=False), Strike(stage, epoch))
    with pytest.raises(RuntimeError, match="STRUCK"):
        run_stream(folder, callbacks=parts, every_seconds=0, **options)


def go_on(run_stream: RunStream, folder: Path, **options: Any) -> list[dict[str, str]]:
    trainer, _ = run_stream(folder, callbacks=(StreamReport(figures=False),), ckpt_path="last", **options)
    events: list[dict[str, str]] = json.loads((folder / "stream.json").read_text())["events"]
    assert trainer.record.events == events
    return events


def test_each_stop_is_remembered_also_within_one_stage(tmp_path: Path, run_stream: RunStream) -> None:
    strike(run_stream, tmp_path, "block0-base-1", epoch=0)
    strike(run_stream, tmp_path, "block1-student_update", epoch=0, ckpt_path="last")
    strike(run_stream, tmp_path, "block1-student_update", epoch=1, ckpt_path="last")
    assert go_on(run_stream, tmp_path) == [
        {"what": "resumed", "where": "block0-base-0"},
        {"what": "resumed", "where": "block0-distillation"},
        {"what": "resumed", "where": "block0-distillation"},
    ]


def test_files_that_cannot_be_read_are_remembered(tmp_path: Path, run_stream: RunStream) -> None:
    strike(run_stream, tmp_path, "block1-student_update", epoch=0)
    unfinished = unfinished_in(tmp_path)[-1]
    unfinished.write_bytes(b"torn")
    with pytest.warns(UserWarning, match="the stage block1-student_update begins anew"):
        events = go_on(run_stream, tmp_path)
    assert events[1:] == [{"what": "unreadable", "where": unfinished.name}]
    newest = checkpoints_in(tmp_path)[-1]
    newest.write_bytes(b"torn")
    with pytest.warns(UserWarning, match="Going on from"):
        events = go_on(run_stream, tmp_path)
    assert events[2:] == [
        {"what": "unreadable", "where": newest.name},
        {"what": "continued", "where": "block2-teacher_update-1"},
    ]


def test_new_blocks_of_a_finished_stream_are_no_stop(tmp_path: Path, run_stream: RunStream) -> None:
    run_stream(tmp_path, callbacks=(StreamReport(figures=False),), source=small_source(2))
    assert go_on(run_stream, tmp_path, source=small_source(3)) == [
        {"what": "continued", "where": "block1-distillation"}
    ]


def test_a_stream_that_begins_with_a_checkpoint_of_another_folder_was_not_stopped(
    tmp_path: Path, run_stream: RunStream
) -> None:
    run_stream(tmp_path / "first", source=small_source(2))
    trainer, _ = run_stream(tmp_path / "second", source=small_source(3), ckpt_path=str(tmp_path / "first"))
    assert trainer.record.events == []


def test_stages_remember_their_evaluations_also_those_before_a_stop(tmp_path: Path, run_stream: RunStream) -> None:
    plan = StreamPlan(student_update=StageSettings(max_epochs=4, evaluate_every=1, patience=9))
    whole, _ = run_stream(tmp_path / "whole", source=small_source(2), plan=plan)
    strike(run_stream, tmp_path / "cut", "block1-student_update", epoch=2, source=small_source(2), plan=plan)
    cut, _ = run_stream(tmp_path / "cut", source=small_source(2), plan=plan, ckpt_path="last")
    courses = [
        {stage["name"]: (stage["epochs"], stage["max_epochs"], stage["recalls"]) for stage in trainer.record.stages}
        for trainer in (whole, cut)
    ]
    epochs, most, recalls = courses[0]["block1-student_update"]
    assert (epochs, most, len(recalls)) == (4, 4, 4)
    assert courses[1] == courses[0]


def test_overlap_of_blocks_that_an_older_release_learned_is_unknown() -> None:
    record = StreamRecord()
    record.add_overlap(2, 0.5)
    record.add_overlap(3, 0.25)
    record.add_overlap(3, 0.75)
    assert record.summary()["overlap"] == {"top@20": [None, None, 0.5, 0.75]}
    old = {name: value for name, value in record.state_dict().items() if name not in ("overlap", "events")}
    record.load_state_dict(old)
    assert (record.overlap, record.events) == ([], [])
