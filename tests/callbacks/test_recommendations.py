"""Recommendations in raw ids against a ranking by hand."""

from __future__ import annotations

import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from lightning.pytorch import Callback
from pyarrow.parquet import ParquetFile

from ccd_lightning.callbacks import Recommendations, recommendations

from .conftest import Run, new_stream, new_system, new_trainer

K = 7


def predict(run: Run, folder: Path, callback: Recommendations, *others: Any) -> pl.DataFrame:
    trainer = new_trainer(folder, callback, *others)
    trainer.predict(new_system(), datamodule=new_stream(), ckpt_path=str(run.folder))
    return pl.read_parquet(callback.target(trainer))


def by_hand(run: Run, exclude_seen: bool) -> list[tuple[str, int, int]]:
    """User, rank and item: a sort in numpy over embeddings and raw interactions."""
    backbone = run.system.student.backbone
    user, item = (table.detach().numpy() for table in backbone.embeddings())  # type: ignore[union-attr]
    scores = user.astype(np.float32) @ item.T.astype(np.float32)
    if exclude_seen:
        for block in run.stream.blocks:
            scores[block.train.users.numpy(), block.train.items.numpy()] = -np.inf
    names, numbers = run.stream.stream.users.raw.to_list(), run.stream.stream.items.raw.to_list()
    rows = []
    for index, row in enumerate(scores):
        best = np.argsort(-row, kind="stable")[:K]
        rows += [(names[index], rank + 1, numbers[i]) for rank, i in enumerate(best) if row[i] > -np.inf]
    return rows


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_recommendations_are_the_best_items_of_the_student(reported: Run, tmp_path: Path, exclude_seen: bool) -> None:
    found = predict(reported, tmp_path, Recommendations(K, exclude_seen))
    assert [(user, rank, item) for user, rank, item, _ in found.iter_rows()] == by_hand(reported, exclude_seen)


def test_recommendations_keep_the_types_of_the_raw_ids(reported: Run, tmp_path: Path) -> None:
    found = predict(reported, tmp_path, Recommendations(K))
    assert found.schema == {"user": pl.String, "rank": pl.Int32, "item": pl.Int64, "score": pl.Float32}
    assert found["user"].n_unique() == reported.system.student.backbone.num_users


def test_recommendations_scores_fall_with_the_rank(reported: Run, tmp_path: Path) -> None:
    found = predict(reported, tmp_path, Recommendations(K))
    falling = found.group_by("user", maintain_order=True).agg((pl.col("score").diff().drop_nulls() <= 0).all())
    assert falling["score"].all()


def test_recommendations_run_out_for_users_who_have_seen_nearly_everything(reported: Run, tmp_path: Path) -> None:
    items = reported.system.student.backbone.num_items
    found = predict(reported, tmp_path, Recommendations(items))
    train = torch.cat([torch.stack(tuple(block.train)) for block in reported.stream.blocks], dim=1).unique(dim=1)
    unseen = items - torch.bincount(train[0], minlength=reported.system.student.backbone.num_users)
    counts = found.group_by("user", maintain_order=True).len()
    assert counts["len"].to_list() == unseen.tolist()


def test_recommendations_go_to_the_given_path(reported: Run, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "top.parquet"
    predict(reported, tmp_path, Recommendations(3, path=str(path)))
    assert [entry.name for entry in path.parent.iterdir()] == ["top.parquet"]


def test_recommendations_of_other_processes_get_a_file_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommendations, "process_rank", lambda: 2)
    assert Recommendations().target(new_trainer(tmp_path)) == tmp_path / "recommendations-2.parquet"


def test_recommendations_remove_files_of_more_processes_and_no_others(
    reported: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in (1, 2):
        with monkeypatch.context() as patched:
            patched.setattr(recommendations, "process_rank", partial(int, rank))
            patched.setattr(recommendations, "world_size", lambda: 3)
            predict(reported, tmp_path, Recommendations(2))
    parts = {f"recommendations-{rank}.parquet" for rank in (1, 2)}
    assert {path.name for path in tmp_path.iterdir()} == parts
    predict(reported, tmp_path, Recommendations(2))
    # Copies that are named by hand, of text and of the predictions themselves.
    (tmp_path / "recommendations-20.parquet").write_text("mine")
    shutil.copy(tmp_path / "recommendations.parquet", tmp_path / "recommendations-20261120.parquet")
    predict(reported, tmp_path, Recommendations(2))
    kept = {"recommendations.parquet", "recommendations-20.parquet", "recommendations-20261120.parquet"}
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_recommendations_are_written_batch_by_batch(reported: Run, tmp_path: Path) -> None:
    """What stays in memory is a batch, however many users there are."""
    predict(reported, tmp_path, Recommendations(2))
    users = reported.system.student.backbone.num_users
    file = ParquetFile(tmp_path / "recommendations.parquet")
    assert file.num_row_groups == math.ceil(users / reported.stream.evaluation_batch)
    assert {file.metadata.row_group(index).num_rows for index in range(file.num_row_groups - 1)} <= {2 * 32}


def test_recommendations_leave_nothing_half_written(reported: Run, tmp_path: Path) -> None:
    class Fail(Recommendations):
        def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
            super().on_predict_batch_end(*args, **kwargs)
            raise RuntimeError("FAIL")

    with pytest.raises(RuntimeError, match="FAIL"):
        predict(reported, tmp_path, Fail(K))
    assert not list(tmp_path.rglob("*recommendations*"))


def test_recommendations_replace_an_older_file_whole(reported: Run, tmp_path: Path) -> None:
    (tmp_path / "recommendations.parquet").write_text("old")
    assert predict(reported, tmp_path, Recommendations(2)).height == 2 * reported.system.student.backbone.num_users
    assert [path.name for path in tmp_path.iterdir()] == ["recommendations.parquet"]


def test_recommendations_refuse_more_items_than_there_are(reported: Run, tmp_path: Path) -> None:
    items = reported.system.student.backbone.num_items
    with pytest.raises(ValueError, match=f"`k` is 1000, but the student knows {items} items"):
        predict(reported, tmp_path, Recommendations(1000))


def test_recommendations_refuse_an_untrained_student(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`ckpt_path` of a trained stream"):
        new_trainer(tmp_path, Recommendations()).predict(new_system(), datamodule=new_stream())


def test_recommendations_refuse_no_item_at_all() -> None:
    with pytest.raises(ValueError, match="`k` is 0"):
        Recommendations(k=0)


def test_recommendations_ask_for_the_stream(reported: Run, tmp_path: Path) -> None:
    users = torch.utils.data.DataLoader(torch.arange(4), batch_size=2)
    with pytest.raises(ValueError, match="pass the ContinualDataModule"):
        new_trainer(tmp_path, Recommendations(2)).predict(reported.system, dataloaders=users)


def test_two_predictions_into_one_file_do_not_mix(
    reported: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Meanwhile(Callback):
        """Another process predicts into the same file, and is done first."""

        def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
            with monkeypatch.context() as patched:
                patched.setattr(recommendations.os, "getpid", lambda: 1)
                assert predict(reported, tmp_path, Recommendations(3))["rank"].max() == 3

    callback = Recommendations(K)
    # Before the first one ends its file.
    trainer = new_trainer(tmp_path, Meanwhile(), callback)
    trainer.predict(new_system(), datamodule=new_stream(), ckpt_path=str(reported.folder))
    found = pl.read_parquet(callback.target(trainer))
    assert [(user, rank, item) for user, rank, item, _ in found.iter_rows()] == by_hand(reported, True)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []
