"""Short runs of the shipped configurations, on a cut of their data."""

from __future__ import annotations

from pathlib import Path

import polars as pl

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
KINDS = ("base", "first_distillation", "student_update", "teacher_update", "distillation")
SHORT = [f"--trainer.plan.{kind}.max_epochs=1" for kind in KINDS] + ["--trainer.accelerator", "cpu"]

REAL = {"yelp_cpu": 2, "yelp": 5, "gowalla": 7, "paper/yelp": 5, "paper/gowalla": 7}
"""Teachers of the configurations of real streams."""

SIMULATED = {
    "ccd": ["ccd"],
    "fine_tuning": ["ccd", "fine_tuning"],
    "proxy_replay": ["ccd", "ablations/proxy_replay"],
}
"""Files of the configurations of the simulated stream; the last one's models are taught by everyone."""


def cut(table: Path, folder: Path, users: int = 250, items: int = 200, blocks: int = 3) -> Path:
    """The rows among the busiest users and items of the first blocks."""
    rows = pl.read_parquet(table).filter(pl.col("block") < blocks)
    kept_users = rows["user"].value_counts(sort=True).head(users)["user"]
    kept_items = rows["item"].value_counts(sort=True).head(items)["item"]
    kept = rows.filter(pl.col("user").is_in(kept_users.implode()) & pl.col("item").is_in(kept_items.implode()))
    kept.write_parquet(folder / "cut.parquet")
    return folder / "cut.parquet"


def table_of(config: str, shared_data: Path) -> Path:
    """The stream that a configuration is meant for."""
    return shared_data / f"{'gowalla' if 'gowalla' in config else 'yelp'}_blocks.parquet"


def short_real_fit(config: str, table: Path, folder: Path) -> list[str]:
    """Arguments of one epoch a stage on a table, into a folder."""
    data = ["--data.source.path", str(table)]
    return [
        "fit",
        "--config",
        str(CONFIGS / f"{config}.yaml"),
        *data,
        *SHORT,
        "--trainer.default_root_dir",
        str(folder),
    ]


def short_simulated_fit(config: str, folder: Path, blocks: int = 3) -> list[str]:
    """Arguments of one epoch a stage on a small simulated stream, into a folder."""
    files = [part for name in SIMULATED[config] for part in ("--config", str(CONFIGS / f"{name}.yaml"))]
    sizes = {"users": 150, "items": 100, "interactions": 3500, "blocks": blocks}
    data = [f"--data.source.{name}={size}" for name, size in sizes.items()]
    return ["fit", *files, *SHORT, *data, "--model.ks=[20]", "--trainer.default_root_dir", str(folder)]
