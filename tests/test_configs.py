"""Every configuration runs for one epoch a stage on a cut of its data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ccd_lightning.cli import main

from .helpers import CONFIGS, REAL, SIMULATED, cut, short_real_fit, short_simulated_fit, table_of


def check(run: Path, blocks: int, teachers: int) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    stages = json.loads((run / "stream.json").read_text())
    assert len(metrics["student"]["recall@20"]["H"]) == blocks
    assert 0 < metrics["teacher"]["recall@20"]["H"][-1] < 1
    assert stages["status"] == "finished"
    names = [stage["name"] for block in stages["blocks"] for stage in block["stages"]]
    assert sum("base" in name for name in names) == teachers


@pytest.mark.real_data
@pytest.mark.parametrize(("config", "teachers"), REAL.items())
def test_config_of_a_real_stream_runs(tmp_path: Path, shared_data: Path, config: str, teachers: int) -> None:
    table = cut(table_of(config, shared_data), tmp_path)
    main(short_real_fit(config, table, tmp_path / "run"))
    check(tmp_path / "run", blocks=3, teachers=teachers)


@pytest.mark.parametrize("config", SIMULATED)
def test_config_of_the_simulated_stream_runs(tmp_path: Path, config: str) -> None:
    main(short_simulated_fit(config, tmp_path / "run"))
    check(tmp_path / "run", blocks=3, teachers=2)


def test_every_config_is_tested() -> None:
    found = {str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.rglob("*.yaml")}
    # Those of tests/tracking: an overlay, and a sweep.
    assert found == {*REAL, *SIMULATED, "wandb", "sweep"}
