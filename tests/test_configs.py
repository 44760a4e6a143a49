"""Every configuration runs for one epoch a stage on a cut of its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def studies() -> dict[str, dict[str, Any]]:
    """The studies by their names in configs/."""
    found = {name_of(path): yaml.safe_load(path.read_text()) for path in (CONFIGS / "studies").glob("*.yaml")}
    return {name: content for name, content in found.items() if "methods" in content}


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS).with_suffix(""))


def methods_of_studies() -> list[tuple[str, ...]]:
    """The files of every method of every study, each set of them once."""
    return sorted({
        (*study["base"], *method.get("overlays", []))
        for study in studies().values()
        for method in study["methods"].values()
    })  # fmt: skip


@pytest.mark.parametrize("turned", [False, True], ids=["forth", "back"])
@pytest.mark.parametrize("study", studies())
def test_overlays_of_a_study_are_valid(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], study: str, turned: bool
) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    content = studies()[study]
    overlays = [file for method in content["methods"].values() for file in method.get("overlays", [])]
    # All of them at once: each key of each is looked at, and in the two orders each key's first and last value.
    # Floors come last: they take the models' places, and have neither graphs nor rows that could begin anywhere.
    floors = [file for file in set(overlays) if Path(file).stem in ("item_knn", "popularity")]
    ordered = [*sorted(set(overlays) - {*floors}, reverse=turned), *sorted(floors, reverse=turned)]
    files = [*content["base"], *ordered]
    with pytest.raises(SystemExit) as ended:
        main(["fit", *(part for file in files for part in ("--config", file)), "--print_config"])
    assert ended.value.code in (None, 0), capsys.readouterr().err


def test_every_config_is_tested() -> None:
    found = {name_of(path) for path in CONFIGS.rglob("*.yaml")}
    used = {name_of(CONFIGS.parent / file) for files in methods_of_studies() for file in files}
    # The last two in tests/tracking: an overlay, and a sweep.
    simulated = {name for files in SIMULATED.values() for name in files}
    assert found == {*REAL, *simulated, *studies(), *used, "wandb", "sweep"}
