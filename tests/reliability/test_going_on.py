"""Where a run goes on, and where it refuses to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ccd_lightning import resume
from ccd_lightning.backbones import BPRMF, LightGCN
from ccd_lightning.callbacks import StreamReport
from ccd_lightning.checkpoint import checkpoints_in, has_saved, unfinished_in
from ccd_lightning.data import IdMap
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.modules import CollaborativeDistillation, Student, Teacher
from ccd_lightning.plan import StreamPlan
from ccd_lightning.types import StageSettings
from tests.stream.conftest import RunStream, run_stream, small_source
from tests.stream.test_trainer import LONGER, DieWithin, assert_same, what_counts

__all__ = ["run_stream"]


class DieAfter(StreamCallback):
    """Dies once a stage is saved."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def on_stage_end(self, trainer: Any, system: Any, stage: Any) -> None:
        if stage.name == self.stage:
            raise RuntimeError("CRASH")


class Stages(StreamCallback):
    """Which stages are learned."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_stage_end(self, trainer: Any, system: Any, stage: Any) -> None:
        self.names.append(stage.name)


def test_fit_refuses_to_begin_where_a_stream_is(tmp_path: Path, run_stream: RunStream) -> None:
    run_stream(tmp_path, source=small_source(blocks=1), max_epochs=1)
    with pytest.raises(
        MisconfigurationException, match=r"already holds a stream.*`--ckpt_path last`.*default_root_dir"
    ):
        run_stream(tmp_path, source=small_source(blocks=1), max_epochs=1)


def test_fit_refuses_to_begin_where_a_first_stage_is_unfinished(tmp_path: Path, run_stream: RunStream) -> None:
    settings: dict[str, Any] = {"source": small_source(blocks=1), "plan": LONGER, "every_seconds": 0.0}
    with pytest.raises(RuntimeError, match="CRASH"):
        run_stream(tmp_path, callbacks=(DieWithin("block0-base-0", 2),), **settings)
    assert not checkpoints_in(tmp_path)
    assert unfinished_in(tmp_path)
    with pytest.raises(MisconfigurationException, match="already holds a stream"):
        run_stream(tmp_path, **settings)


def test_checkpoints_of_lightning_are_no_stream(tmp_path: Path, run_stream: RunStream) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "epoch=0-step=10.ckpt").touch()
    assert not has_saved(tmp_path)
    run_stream(tmp_path, source=small_source(blocks=1), max_epochs=1)
    assert (folder / "epoch=0-step=10.ckpt").exists()


def test_last_begins_a_run_that_was_stopped_before_its_first_save(tmp_path: Path, run_stream: RunStream) -> None:
    (tmp_path / "stream.json").write_text("{}")
    with pytest.warns(UserWarning, match="stopped before anything was saved: it begins anew"):
        trainer, _ = run_stream(tmp_path, source=small_source(blocks=1), max_epochs=1, ckpt_path="last")
    assert trainer.stages_done == 3


def test_going_on_from_an_older_checkpoint_forgets_what_came_after(tmp_path: Path, run_stream: RunStream) -> None:
    _, expected = run_stream(tmp_path)
    older = checkpoints_in(tmp_path)[0]
    with pytest.raises(RuntimeError, match="CRASH"):
        run_stream(tmp_path, ckpt_path=str(older), callbacks=(DieAfter("block1-student_update"),))
    assert [path.name for path in checkpoints_in(tmp_path)] == [older.name, "00004-block1-student_update.ckpt"]
    trainer, found = run_stream(tmp_path, ckpt_path="last")
    assert trainer.stages_done == 11
    assert_same(expected, found)


class Decaying(Teacher):
    """A teacher with a scheduler."""

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)}


def test_scheduler_and_patience_go_on_within_a_stage(tmp_path: Path, run_stream: RunStream) -> None:
    def settings() -> dict[str, Any]:
        patient = StageSettings(max_epochs=40, learning_rate=0.1, batch_size=256, evaluate_every=1, patience=2)
        system = CollaborativeDistillation(Student(LightGCN(4)), [Decaying(BPRMF(8))], ks=(20,))
        source = small_source(blocks=1)
        return {"system": system, "plan": StreamPlan(base=patient), "source": source, "every_seconds": 0.0}

    whole, expected = run_stream(tmp_path / "whole", **settings())
    epochs = whole.record.stages[0]["epochs"]
    assert 3 < epochs < 40
    # The first of the two evaluations that end the stage is past.
    with pytest.raises(RuntimeError, match="CRASH"):
        run_stream(tmp_path / "cut", callbacks=(DieWithin("block0-base-0", epochs - 1),), **settings())
    trainer, found = run_stream(tmp_path / "cut", ckpt_path="last", **settings())
    assert_same(expected, found)
    assert what_counts(trainer) == what_counts(whole)


@pytest.mark.parametrize("larger", [{"learning_rate": 10.0}, {"weight_decay": 0.5}, {"eps": 1e-3}])
def test_a_stage_begins_anew_with_other_steps(larger: dict[str, float], tmp_path: Path, run_stream: RunStream) -> None:
    def settings(changes: dict[str, float]) -> dict[str, Any]:
        steps: dict[str, Any] = {"learning_rate": 0.01, **changes}
        base = StageSettings(max_epochs=5, batch_size=256, evaluate_every=0, **steps)
        return {"plan": StreamPlan(base=base), "source": small_source(blocks=1), "every_seconds": 0.0}

    _, expected = run_stream(tmp_path / "whole", **settings({}))
    with pytest.raises(RuntimeError, match="CRASH"):
        run_stream(tmp_path / "cut", callbacks=(DieWithin("block0-base-0", 3),), **settings(larger))
    with pytest.warns(
        UserWarning, match="Learning rate, weight decay or eps of block0-base-0 have changed.*begins anew"
    ):
        _, found = run_stream(tmp_path / "cut", ckpt_path="last", **settings({}))
    assert_same(expected, found)


class Dropping(BPRMF):
    """Draws without a generator."""

    def loss(self, batch: Any) -> torch.Tensor:
        kept = torch.nn.functional.dropout(torch.ones(len(batch.users), 1), 0.5)
        return super().loss(batch) + (kept * self.user_embedding[batch.users] + 0.1 * torch.rand(1)).sum()


def test_what_is_drawn_without_a_generator_is_drawn_again(tmp_path: Path, run_stream: RunStream) -> None:
    def settings() -> dict[str, Any]:
        system = CollaborativeDistillation(Student(Dropping(4)), [Teacher(Dropping(8))], ks=(20,))
        return {"system": system, "plan": LONGER, "source": small_source(blocks=2), "every_seconds": 0.0}

    _, expected = run_stream(tmp_path / "whole", **settings())
    for stage in ("block0-base-0", "block1-student_update"):
        with pytest.raises(RuntimeError, match="CRASH"):
            run_stream(tmp_path / stage, callbacks=(DieWithin(stage, 2),), **settings())
        torch.rand(7)
        _, found = run_stream(tmp_path / stage, ckpt_path="last", **settings())
        assert_same(expected, found)


def test_another_runs_checkpoint_does_not_take_a_streams_place(tmp_path: Path, run_stream: RunStream) -> None:
    small: dict[str, Any] = {"source": small_source(blocks=1), "max_epochs": 1}
    for name in ("other", "mine"):
        run_stream(tmp_path / name, **small)
    before = {path: path.read_bytes() for path in sorted((tmp_path / "mine").rglob("*")) if path.is_file()}
    for path in (tmp_path / "other", checkpoints_in(tmp_path / "other")[0]):
        with pytest.raises(MisconfigurationException, match="already holds a stream"):
            run_stream(tmp_path / "mine", ckpt_path=str(path), **small)
    assert {path: path.read_bytes() for path in sorted((tmp_path / "mine").rglob("*")) if path.is_file()} == before
    # Its own may be gone back to, and a new folder may begin with another's.
    run_stream(tmp_path / "mine", ckpt_path=str(checkpoints_in(tmp_path / "mine")[0]), **small)
    run_stream(tmp_path / "third", ckpt_path=str(checkpoints_in(tmp_path / "other")[0]), **small)


def test_a_requeued_job_goes_on_with_its_own_stream_wherever_it_began(
    tmp_path: Path, run_stream: RunStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    small: dict[str, Any] = {"source": small_source(blocks=1), "max_epochs": 1}
    run_stream(tmp_path / "other", **small)
    first = checkpoints_in(tmp_path / "other")[0]
    monkeypatch.setattr(resume, "was_requeued", lambda: True)
    begun, _ = run_stream(tmp_path / "mine", ckpt_path=str(first), **{**small, "callbacks": (count := Stages(),)})
    assert 0 < len(count.names) < len(begun.record.stages)
    again, _ = run_stream(tmp_path / "mine", ckpt_path=str(first), **{**small, "callbacks": (count := Stages(),)})
    assert not count.names
    assert len(again.record.stages) == len(begun.record.stages)


def test_stream_learned_in_two_goes_is_the_one_learned_at_once_and_keeps_its_ids(
    tmp_path: Path, run_stream: RunStream
) -> None:
    def learn(folder: str, blocks: int, **more: Any) -> tuple[CollaborativeDistillation, dict[str, list[Any]]]:
        report = StreamReport(figures=False)
        _, system = run_stream(tmp_path / folder, source=small_source(blocks), callbacks=(report,), **more)
        raw = {name: IdMap.load(tmp_path / folder / f"{name}.parquet").raw.to_list() for name in ("users", "items")}
        return system, raw

    expected, _ = learn("once", 3)
    _, first = learn("twice", 2)
    found, ids = learn("twice", 3, ckpt_path="last")
    assert_same(expected, found)
    for name, before in first.items():
        assert len(before) < len(ids[name]) == len(set(ids[name]))
        assert ids[name][: len(before)] == before
