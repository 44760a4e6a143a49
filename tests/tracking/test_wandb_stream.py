from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import WandbLogger

from ccd_lightning.callbacks import StreamReport, WandbStream, trial_folder
from ccd_lightning.callbacks.wandb_stream import FILE
from ccd_lightning.cli import main
from tests.helpers import CONFIGS, short_simulated_fit
from tests.reliability.refusals import refusal
from tests.tracking.offline import OfflineRun, end_run

OVERLAY = ["--config", str(CONFIGS / "wandb.yaml")]


def fitted(folder: Path, blocks: int, *arguments: str) -> None:
    main([*short_simulated_fit("ccd", folder, blocks), *OVERLAY, *arguments])
    end_run()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, offline: pytest.MonkeyPatch) -> tuple[Path, list[OfflineRun]]:
    """A stream of two blocks that goes on with a third one, and what W&B was told each time."""
    folder = tmp_path_factory.mktemp("tracked") / "run"
    fitted(folder, 2)
    fitted(folder, 3, "--ckpt_path", "last")
    return folder, [OfflineRun(path) for path in sorted((folder / "wandb").glob("offline-run-*"))]


def test_a_stream_that_goes_on_stays_the_same_run(runs: tuple[Path, list[OfflineRun]]) -> None:
    folder, (first, second) = runs
    assert first.id == second.id == json.loads((folder / FILE).read_text())["id"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            "No API key configured. Use `wandb login`",
            "W&B has no API key: run `wandb login`, or put `WANDB_MODE=offline`",
        ),
        ("entity is wrong", r"W&B refuses the run (entity is wrong): run `wandb login`"),
        (
            "connection refused",
            r"W&B refuses the run (connection refused): run `wandb login`, or put `WANDB_MODE=offline`",
        ),
    ],
)
def test_without_an_account_one_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: str, message: str
) -> None:
    def refused(**options: Any) -> None:
        raise (wandb.errors.CommError if "connection" in error else wandb.errors.UsageError)(error)

    monkeypatch.setattr(wandb, "init", refused)
    told = refusal(capsys, [*short_simulated_fit("ccd", tmp_path / "run", 2), *OVERLAY])
    assert told.startswith(message)


def test_losses_and_validation_name_block_and_stage(runs: tuple[Path, list[OfflineRun]]) -> None:
    _, (first, second) = runs
    stages = json.loads((runs[0] / "stream.json").read_text())["blocks"]
    for run, blocks in ((first, (0, 1)), (second, (2,))):
        rows = [row for row in run.history if any("/loss/" in name or "/valid/" in name for name in row)]
        assert {(int(row["block"]), int(row["stage"])) for row in rows} == {
            (block, number)
            for number, (block, _) in enumerate((at["index"], stage) for at in stages for stage in at["stages"])
            if block in blocks
        }
        assert {row["stage_epoch"] for row in rows} == {0}


def test_averages_stand_against_blocks(runs: tuple[Path, list[OfflineRun]]) -> None:
    folder, (first, second) = runs
    metrics = json.loads((folder / "metrics.json").read_text())
    for role in ("teacher", "student", "distilled"):
        for name in ("LA", "RA", "H"):
            key = f"stream/{role}/{name}"
            found = {row["block"]: row[key] for run in runs[1] for row in run.history if key in row}
            assert found == dict(enumerate(pytest.approx(value) for value in metrics[role]["recall@20"][name]))
            assert second.axes[key] == "block"
    assert second.summary["stream/student/H"] == pytest.approx(metrics["student"]["recall@20"]["H"][-1])
    tests = {name for row in first.history for name in row if name.startswith("test/")}
    assert tests and all(first.axes[name] == "block" for name in tests)


def test_matrices_and_costs_are_logged_after_every_block(runs: tuple[Path, list[OfflineRun]]) -> None:
    folder, (first, second) = runs
    metrics = json.loads((folder / "metrics.json").read_text())
    media = next((folder / "wandb").glob("offline-run-*"))
    for role in ("teacher", "student", "distilled"):
        assert len(list((media / "files" / "media" / "images" / "matrix").glob(f"{role}_*.png"))) == 2
    newest = sorted((folder / "wandb").glob("offline-run-*"))[-1] / "files" / "media" / "table"
    table = rows_of(newest / "matrix", "table")
    found = {
        (row["role"], row["after_block"], row["block"]): row["value"]
        for row in table
        if (row["group"], row["quantity"]) == ("all", "A")
    }
    for role in ("teacher", "student", "distilled"):
        for after, row in enumerate(metrics[role]["recall@20"]["A"]):
            for block, value in enumerate(row):
                assert found[role, after, block] == pytest.approx(value)
    stages, models = rows_of(newest / "cost", "stages"), rows_of(newest / "cost", "models")
    assert second.summary["cost/seconds"] == pytest.approx(sum(row["seconds"] for row in stages))
    assert {(row["block"], row["role"]) for row in models} == {
        (k, of) for k in range(3) for of in ("teacher", "student")
    }
    assert first.column("cost/peak_bytes")


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    """The last table of a name."""
    path = max(folder.glob(f"{name}_*.table.json"), key=lambda path: int(path.name.split("_")[1]))
    table = json.loads(path.read_text())
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def test_configuration_is_logged_as_it_stands_beside_the_run(runs: tuple[Path, list[OfflineRun]]) -> None:
    folder, found = runs
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    for run in found:
        assert run.config["trainer"]["plan"] == saved["trainer"]["plan"]
        assert run.config["distillation"] == saved["distillation"]
    assert saved["trainer"]["logger"]["init_args"]["project"] == "ccd-lightning"


def test_student_is_an_artifact_of_every_block(runs: tuple[Path, list[OfflineRun]]) -> None:
    _, found = runs
    students = [artifact for run in found for artifact in run.artifacts if artifact.type == "model"]
    assert {alias for artifact in students for alias in artifact.aliases} == {"block0", "block1", "block2", "latest"}
    assert {artifact.name for artifact in students} == {f"student-{found[0].id}"}
    names = {entry.path for entry in students[-1].manifest.contents}
    assert {"student.safetensors", "users.parquet", "items.parquet", "manifest.json"} <= names
    assert json.loads(students[-1].metadata)["block"] == 2


def test_a_test_goes_on_with_the_run(runs: tuple[Path, list[OfflineRun]]) -> None:
    folder, (first, _) = runs
    main(["test", "--config", str(folder / "config.yaml"), "--ckpt_path", "last"])
    end_run()
    newest = OfflineRun(sorted((folder / "wandb").glob("offline-run-*"))[-1])
    assert newest.id == first.id
    assert newest.column("test/student/recall@20/D2")


def test_without_a_wandb_logger_nothing_happens() -> None:
    trainer: Any = SimpleNamespace(loggers=[object()], is_global_zero=True)
    callback: Any = WandbStream()
    callback.on_stream_start(trainer, None)
    callback.on_block_end(trainer, None, None)
    assert wandb.run is None


def test_a_run_is_gone_on_with_also_where_the_command_line_builds_the_logger(
    tmp_path: Path, offline: pytest.MonkeyPatch
) -> None:
    # LightningCLI passes None for every option that is not given.
    logger = WandbLogger(save_dir=None, resume=None)
    trainer: Any = SimpleNamespace(loggers=[logger], is_global_zero=True, default_root_dir=str(tmp_path))
    (tmp_path / FILE).write_text('{"id": "before"}')
    WandbStream().on_stream_restored(trainer, None)  # type: ignore[arg-type]
    run = logger.experiment
    end_run()
    assert (run.id, run.settings.resume) == ("before", "allow")
    assert list((tmp_path / "wandb").glob("offline-run-*-before"))


def test_other_processes_do_not_touch_the_run(tmp_path: Path) -> None:
    logger = WandbLogger(offline=True)
    trainer: Any = SimpleNamespace(loggers=[logger], is_global_zero=False, default_root_dir=str(tmp_path))
    callback: Any = WandbStream()
    callback.on_stream_start(trainer, None)
    callback.on_stream_restored(trainer, None)
    assert logger.version is None
    assert list(tmp_path.iterdir()) == []


def test_a_broken_note_of_the_run_is_named(tmp_path: Path, offline: pytest.MonkeyPatch) -> None:
    (tmp_path / FILE).write_text("[")
    trainer: Any = SimpleNamespace(loggers=[WandbLogger()], is_global_zero=True, default_root_dir=str(tmp_path))
    with pytest.raises(MisconfigurationException, match=r"wandb\.json should name the W&B run.*remove it"):
        WandbStream().on_stream_restored(trainer, None)  # type: ignore[arg-type]


def test_trials_of_a_sweep_have_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    monkeypatch.setenv("WANDB_RUN_ID", "one")
    assert trial_folder() is None
    monkeypatch.setenv("WANDB_SWEEP_ID", "me/project/abc")
    first = trial_folder()
    monkeypatch.setenv("WANDB_RUN_ID", "two")
    assert (first, trial_folder()) == (Path("sweep-abc/one"), Path("sweep-abc/two"))


def test_the_callback_stands_behind_the_report(runs: tuple[Path, list[OfflineRun]]) -> None:
    keys = list(yaml.safe_load((runs[0] / "config.yaml").read_text()))
    assert keys.index("report") < keys.index("wandb")
    assert issubclass(WandbStream, StreamReport.__mro__[1])
