"""Every configuration runs for one epoch a stage on a cut of its data."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from ccd_lightning.cli import main

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
KINDS = ("base", "first_distillation", "student_update", "teacher_update", "distillation")
SHORT = [f"--trainer.plan.{kind}.max_epochs=1" for kind in KINDS] + ["--trainer.accelerator", "cpu"]


def cut(table: Path, folder: Path) -> Path:
    """The rows among a few hundred users and items of the first three blocks."""
    rows = pl.read_parquet(table).filter(pl.col("block") < 3)
    users = rows["user"].value_counts(sort=True).head(250)["user"]
    items = rows["item"].value_counts(sort=True).head(200)["item"]
    kept = rows.filter(pl.col("user").is_in(users.implode()) & pl.col("item").is_in(items.implode()))
    kept.write_parquet(folder / "cut.parquet")
    return folder / "cut.parquet"


def check(run: Path, blocks: int, teachers: int) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    stages = json.loads((run / "stream.json").read_text())
    assert len(metrics["student"]["recall@20"]["H"]) == blocks
    assert 0 < metrics["teacher"]["recall@20"]["H"][-1] < 1
    assert stages["status"] == "finished"
    names = [stage["name"] for block in stages["blocks"] for stage in block["stages"]]
    assert sum("base" in name for name in names) == teachers


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("config", "teachers"), [("yelp_cpu", 2), ("yelp", 5), ("gowalla", 7), ("paper/yelp", 5), ("paper/gowalla", 7)]
)
def test_config_of_a_real_stream_runs(tmp_path: Path, shared_data: Path, config: str, teachers: int) -> None:
    name = "gowalla" if "gowalla" in config else "yelp"
    path = cut(shared_data / f"{name}_blocks.parquet", tmp_path)
    folder = ["--trainer.default_root_dir", str(tmp_path / "run")]
    main(["fit", "--config", str(CONFIGS / f"{config}.yaml"), "--data.source.path", str(path), *SHORT, *folder])
    check(tmp_path / "run", blocks=3, teachers=teachers)


@pytest.mark.parametrize("overlay", [[], ["fine_tuning.yaml"]])
def test_config_of_the_simulated_stream_runs(tmp_path: Path, overlay: list[str]) -> None:
    files = [part for name in ["ccd.yaml", *overlay] for part in ("--config", str(CONFIGS / name))]
    sizes = [
        "--data.source.users=150",
        "--data.source.items=100",
        "--data.source.interactions=3500",
        "--data.source.blocks=3",
        "--model.ks=[20]",
    ]
    main(["fit", *files, *SHORT, *sizes, "--trainer.default_root_dir", str(tmp_path / "run")])
    check(tmp_path / "run", blocks=3, teachers=2)


def test_every_config_is_tested() -> None:
    found = {str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.rglob("*.yaml")}
    assert found == {"ccd", "fine_tuning", "yelp", "yelp_cpu", "gowalla", "paper/yelp", "paper/gowalla"}
