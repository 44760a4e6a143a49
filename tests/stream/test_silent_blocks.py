"""Streams with blocks that ask nobody: no validation rows, no test rows, no newcomers."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from rich.console import Console
from typing_extensions import override

from ccd_lightning.callbacks import StreamProgress, StreamReport
from ccd_lightning.data import BlockTable, ContinualDataModule
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.modules import MONITOR, CollaborativeDistillation
from ccd_lightning.plan import StreamPlan
from ccd_lightning.reporting.comparison import comparison_page
from ccd_lightning.reporting.finished import read_run
from ccd_lightning.reporting.tested import models_table
from ccd_lightning.reporting.units import NOTHING
from ccd_lightning.types import Split, Stage, StageSettings

from .conftest import RunStream, small_source

GROUPS = ("new_users", "new_items")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four blocks: D_1 without validation rows, D_2 without test rows and newcomers."""
    datamodule = ContinualDataModule(small_source(blocks=4))
    datamodule.setup("fit")
    parts = [
        pl.DataFrame(
            {"user": rows.users.numpy(), "item": rows.items.numpy(), "block": block.index, "split": split.value}
        )
        for block in datamodule.blocks
        for split in Split
        for rows in [block.split(split)]
    ]
    rows = pl.concat(parts)
    known = rows.filter(pl.col("block") < 2, pl.col("split") == "train")
    old = pl.col("user").is_in(known["user"].implode()) & pl.col("item").is_in(known["item"].implode())
    kept = rows.filter(
        ~((pl.col("block") == 1) & (pl.col("split") == "valid")),
        ~((pl.col("block") == 2) & (pl.col("split") == "test")),
        (pl.col("block") != 2) | old,
    )
    path = tmp_path_factory.mktemp("table") / "blocks.parquet"
    kept.write_parquet(path)
    return path


class States(StreamCallback):
    """What a model was after each of its epochs, and at the end of its stage."""

    def __init__(self, stage: str) -> None:
        self.stage, self.epochs, self.end = stage, [], {}

    @override
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.stage.name == self.stage:
            self.epochs.append(_copy(pl_module))

    @override
    def on_stage_end(self, trainer: Any, system: CollaborativeDistillation, stage: Stage) -> None:
        if stage.name == self.stage:
            self.end = _copy(system.student)


def _copy(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items() if name.startswith("backbone.")}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return bool(first) and all(torch.equal(value, second[name]) for name, value in first.items())


def test_without_validation_rows_a_stage_takes_all_its_epochs_and_keeps_its_last_state(
    tmp_path: Path, table: Path, run_stream: RunStream
) -> None:
    states = States("block1-student_update")
    settings = StageSettings(max_epochs=5, patience=1, learning_rate=0.01)
    plan = StreamPlan(student_update=settings, teacher_update=StageSettings(max_epochs=2))
    trainer, _ = run_stream(tmp_path, source=BlockTable(table), callbacks=(states,), plan=plan)
    stage = next(stage for stage in trainer.record.stages if stage["name"] == states.stage)
    assert stage["epochs"] == len(states.epochs) == 5 and stage["recalls"] == []
    assert same(states.epochs[-1], states.end) and not same(states.epochs[0], states.end)
    # Blocks that ask somebody are judged as ever, in the stages that validate.
    judged = [stage["block"] for stage in trainer.record.stages if stage["recalls"]]
    assert judged == [0, 0, 2, 2, 2, 3, 3, 3]


def test_callbacks_of_the_user_that_watch_validation_stay_away_where_nobody_is_asked(
    tmp_path: Path, table: Path, run_stream: RunStream
) -> None:
    watchers = (
        EarlyStopping(MONITOR, mode="max", patience=50),
        ModelCheckpoint(tmp_path / "own", monitor=MONITOR, mode="max"),
    )
    plan = StreamPlan(student_update=StageSettings(max_epochs=3, evaluate_every=2))
    trainer, _ = run_stream(
        tmp_path, source=BlockTable(table), callbacks=watchers, plan=plan, enable_checkpointing=True
    )
    assert trainer.stages_done == 15 and list((tmp_path / "own").glob("*.ckpt"))


def test_averages_leave_out_blocks_that_ask_nobody(tmp_path: Path, table: Path, run_stream: RunStream) -> None:
    trainer, system = run_stream(tmp_path, source=BlockTable(table), callbacks=(StreamReport(),))
    summary = trainer.record.summary()
    for role in ("teacher", "student", "distilled"):
        found = summary[role]["recall@20"]
        assert [[math.isnan(value) for value in row] for row in found["A"]] == [
            [block == 2 for block in range(k + 1)] for k in range(4)
        ]
        learned = [found["A"][block][block] for block in (0, 1, 3)]
        assert found["LA"][3] == pytest.approx(sum(learned) / 3)
        assert found["RA"][3] == pytest.approx(sum(found["A"][3][block] for block in (0, 1, 3)) / 3)
        assert math.isnan(summary["valid"][role]["recall@20"]["A"][3][1])
        for group in GROUPS:
            assert math.isnan(summary[group][role]["recall@20"]["A"][2][2])
    # Files, page and table have a gap there.
    run = read_run(tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["student"]["recall@20"]["A"][3][2] is None
    page = (tmp_path / "report.html").read_text()
    assert "D1 is without valid rows: its stages take all their epochs and keep their last state." in page
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", comparison_page([run], run), flags=re.DOTALL)
    trainer.test(system, datamodule=trainer.stream, verbose=False)
    output = io.StringIO()
    Console(width=100, file=output).print(models_table(system.test_results(), trainer.record, system.ks))
    text = output.getvalue()
    assert f"{NOTHING} on a block: it asks nobody" in text and "nan" not in text and "not measured" not in text


def test_progress_says_which_blocks_ask_nobody(
    tmp_path: Path, table: Path, run_stream: RunStream, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stream(tmp_path, source=BlockTable(table), callbacks=(StreamProgress(),), max_epochs=1)
    told = [line for line in capsys.readouterr().out.splitlines() if " is without " in line]
    assert told == [
        "D1 is without valid rows: its stages take all their epochs and keep their last state.",
        "D2 is without test rows: there is no metric on it, and the averages leave it out.",
    ]
