"""The examples of the tutorial keep their promises: short, sound, and run in the full loop from outside the package."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from torch.nn.functional import cosine_similarity

from ccd_lightning.data import build_stream
from ccd_lightning.testing import check_backbone
from ccd_lightning.types import RankingBatch
from tests.tiny import factorisation

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def beside_the_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python finds them where train.py stands."""
    monkeypatch.syspath_prepend(str(ROOT))


def lines_of_class(name: str) -> int:
    """Lines from the class's on that hold code or docstring."""
    text = (EXAMPLES / f"{name}.py").read_text()
    return sum(bool(line.strip()) for line in text[text.index("\nclass ") :].splitlines())


def data_base(path: Path, months: int) -> Path:
    generator = torch.Generator().manual_seed(0)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE events (user TEXT, item INTEGER, month TEXT)")
        for month in range(months):
            pairs = torch.randint(0, 40 + 10 * month, (1200, 2), generator=generator).tolist()
            rows = [(f"u{user}", item // 2, f"2026-{month + 1:02}") for user, item in pairs]
            connection.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
    return path


@pytest.mark.parametrize(("name", "most"), [("neural_cf", 40), ("alignment", 25), ("sqlite_log", 25)])
def test_example_is_short(name: str, most: int) -> None:
    assert lines_of_class(name) <= most


def test_backbone_keeps_the_contract() -> None:
    from examples.neural_cf import NeuralCF

    check_backbone(NeuralCF)
    assert NeuralCF().embeddings() is None


def test_objective_is_twice_what_the_cosine_lacks_to_one() -> None:
    from examples.alignment import Alignment

    generator = torch.Generator().manual_seed(3)
    user, item = torch.randn(6, 4, generator=generator), torch.randn(5, 4, generator=generator)
    users, items = torch.tensor([0, 5, 5]), torch.tensor([4, 0, 1])
    found = Alignment()(factorisation(user, item), RankingBatch(users, items, items[:, None], 3))
    torch.testing.assert_close(found, (2 - 2 * cosine_similarity(user[users], item[items])).sum())


def test_source_makes_a_block_of_each_month(tmp_path: Path) -> None:
    from examples.sqlite_log import SQLiteLog

    table = SQLiteLog(str(data_base(tmp_path / "log.db", months=3))).table()
    counts = {tuple(row): count for *row, count in table.group_by("block", "split").len().iter_rows()}
    splits = {"test": 120, "valid": 120, "train": 960}
    assert counts == {(block, split): count for block in range(3) for split, count in splits.items()}
    before = SQLiteLog(str(data_base(tmp_path / "earlier.db", months=2))).table()
    assert table.filter(pl.col("block") < 2).equals(before)
    assert len(build_stream(table, "log").blocks) == 3


@pytest.mark.slow
def test_examples_run_together_in_the_full_loop(tmp_path: Path) -> None:
    config = tmp_path / "own.yaml"
    config.write_text(
        f"""
        trainer:
          accelerator: cpu
          logger: false
          max_epochs: 2
          default_root_dir: {tmp_path / "run"}
        model:
          ks: [20]
          student:
            class_path: ccd_lightning.modules.Student
            init_args:
              backbone: {{class_path: ccd_lightning.backbones.LightGCN, init_args: {{dim: 8}}}}
              objectives:
                - {{class_path: examples.alignment.Alignment, init_args: {{scale: 0.5}}}}
          teachers:
            - class_path: ccd_lightning.modules.Teacher
              init_args:
                backbone: {{class_path: examples.neural_cf.NeuralCF, init_args: {{dim: 8}}}}
        data:
          source:
            class_path: examples.sqlite_log.SQLiteLog
            init_args: {{path: {data_base(tmp_path / "log.db", months=3)}}}
        """
    )
    command = [sys.executable, str(ROOT / "train.py"), "fit", "--config", str(config)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [len(row) for row in metrics["teacher"]["recall@20"]["A"]] == [1, 2, 3]


def test_nightly_job_learns_once_and_hands_over(tmp_path: Path) -> None:
    overlay = tmp_path / "tiny.yaml"
    overlay.write_text(
        "trainer: {accelerator: cpu, max_epochs: 1}\n"
        "data: {source: {init_args: {users: 150, items: 100, interactions: 3500, blocks: 2}}}\n"
        "model: {ks: [20]}\nreport: {figures: false}\n"
    )
    run = tmp_path / "run"
    command = ["bash", "examples/nightly.sh", str(run), "configs/ccd.yaml", str(overlay)]
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}

    def night() -> dict[str, bytes]:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return {name: (run / name).read_bytes() for name in ("metrics.json", "recommendations.parquet")}

    first = night()
    assert json.loads((run / "stream.json").read_text())["status"] == "finished"
    assert (run / "export" / "manifest.json").is_file()
    assert night() == first


def test_a_stream_in_python_goes_on_as_if_it_had_never_ended(tmp_path: Path) -> None:
    from examples import in_python

    told = in_python.main(str(tmp_path / "two_days"), epochs=2)
    trainer, system, stream = in_python.learned(str(tmp_path / "one_day"), blocks=4, epochs=2)
    trainer.predict(system, datamodule=stream)
    assert told.equals(pl.read_parquet(tmp_path / "one_day" / "recommendations.parquet"))
    assert told.group_by("user").len()["len"].to_list() == [10] * len(stream.stream.users)
    assert (tmp_path / "two_days" / "export" / "manifest.json").is_file()


@pytest.mark.parametrize("arguments", [[], ["runs/nightly"]])
def test_nightly_job_without_its_arguments_tells_its_usage(arguments: list[str]) -> None:
    done = subprocess.run(["bash", "examples/nightly.sh", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "usage: examples/nightly.sh RUN CONFIG [OVERLAY ...]\n"
