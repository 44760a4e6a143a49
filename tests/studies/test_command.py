"""The command as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from ccd_lightning.cli import main

from ..helpers import CONFIGS
from .conftest import TINY

QUICK = ["study", "--config", str(CONFIGS / "studies" / "quick.yaml")]


@pytest.mark.slow
def test_quick_study_compares_two_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    main([*QUICK, f"--output={tmp_path}", "--seeds=[0]", "--arguments", json.dumps(TINY)])
    table = pl.read_parquet(tmp_path / "results.parquet")
    assert set(table["method"]) == {"ccd", "one_time_distillation"}
    found = table.filter(model="student", split="test", metric="recall@20", block=1).sort("method")["H"]
    runs = [
        json.loads((tmp_path / "runs" / f"{name}-0" / "metrics.json").read_text())
        for name in sorted(set(table["method"]))
    ]
    assert found.to_list() == [run["student"]["recall@20"]["H"][1] for run in runs]
    first = [run["distilled"]["recall@20"]["A"][0] for run in runs]
    assert first[0] == first[1]
    assert (tmp_path / "gain.png").is_file()


def test_collect_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    main([*QUICK, f"--output={tmp_path}", "--collect", "true"])
    assert "- ccd-0: not begun" in (tmp_path / "results.md").read_text()
    assert not (tmp_path / "runs").exists()


def test_a_failed_run_ends_the_command_with_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], actor: None
) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    with pytest.raises(SystemExit) as ended:
        main([*QUICK, f"--output={tmp_path}", '--methods={"bad": {}}', "--ours=bad", "--baselines=[]", "--seeds=[0]"])
    assert ended.value.code == 1
    assert "bad-0 failed: the settings are wrong" in capsys.readouterr().err
    assert "- bad-0: failed: the settings are wrong" in (tmp_path / "results.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds=[]"], "`seeds` is empty"),
        (["--job=2"], "job"),
        (["--base=[nowhere.yaml]"], "nowhere.yaml, but there is no such file"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_mistakes_end_in_one_message_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    with pytest.raises(SystemExit) as error:
        main([*QUICK, f"--output={tmp_path / 'out'}", *arguments])
    assert error.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "out").exists()
