"""Lightning's other loggers, named on the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ccd_lightning.cli import main
from tests.helpers import short_simulated_fit


def student_curve(run: Path) -> list[float]:
    found: list[float] = json.loads((run / "metrics.json").read_text())["student"]["recall@20"]["H"]
    return found


def logger(name: str, folder: Path) -> dict[str, object]:
    return {"class_path": f"lightning.pytorch.loggers.{name}", "init_args": {"save_dir": str(folder)}}


def test_csv_and_tensorboard_side_by_side(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    loggers = json.dumps([logger("CSVLogger", tmp_path / "csv"), logger("TensorBoardLogger", tmp_path / "board")])
    main([*short_simulated_fit("ccd", tmp_path / "run", blocks=2), "--trainer.logger", loggers])
    expected = student_curve(tmp_path / "run")

    with next((tmp_path / "csv").rglob("metrics.csv")).open() as file:
        rows = list(csv.DictReader(file))
    averages = {float(row["block"]): float(row["stream/student/H"]) for row in rows if row["stream/student/H"]}
    assert averages == pytest.approx(dict(enumerate(expected)))
    losses = [(row["block"], row["stage"]) for row in rows if row["student/loss/own"]]
    assert losses == [("0.0", "2.0"), ("1.0", "3.0"), ("1.0", "6.0")]

    board = events.EventAccumulator(str(next((tmp_path / "board").rglob("events.*")).parent))
    board.Reload()
    assert [event.value for event in board.Scalars("stream/student/H")] == pytest.approx(expected)


def test_mlflow(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    chosen = ["--trainer.logger", "MLFlowLogger", "--trainer.logger.tracking_uri", store]
    main([*short_simulated_fit("ccd", tmp_path / "run", blocks=2), *chosen])
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    found = [entry.value for entry in client.get_metric_history(run.info.run_id, "stream/student/H")]
    assert found == pytest.approx(student_curve(tmp_path / "run"))
    assert run.data.params["trainer/plan/base/max_epochs"] == "1"
