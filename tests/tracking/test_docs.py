"""The commands of docs/tracking.md are accepted as they stand."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest
import yaml

from ccd_lightning.cli import main
from ccd_lightning.commands import sweep

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "tracking.md").read_text()
COMMANDS = re.findall(r"^python train\.py (.+)$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("fit")])
def test_fits_are_understood(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "runs" / "sweep").mkdir(parents=True)
    (tmp_path / "runs" / "sweep" / "best.yaml").write_text("distillation: {exclusion: 20}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([*shlex.split(command), "--print_config"])
    assert ended.value.code == 0
    assert "learning_rate" in capsys.readouterr().out


def test_sweeps_are_understood() -> None:
    (command,) = [command for command in COMMANDS if command.startswith("sweep")]
    parser = argparse.ArgumentParser()
    sweep.add_arguments(parser)
    found = parser.parse_args(shlex.split(command)[1:])
    assert found.trials == 30
    assert (ROOT / found.config).is_file()


def test_files_of_wandb_commands_are_there() -> None:
    assert all((ROOT / name).is_file() for name in re.findall(r"^wandb \w+ (\S+\.yaml)$", TEXT, re.MULTILINE))


def test_a_list_of_loggers_is_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    overlay = tmp_path / "loggers.yaml"
    overlay.write_text(block)
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(ROOT / "configs" / "ccd.yaml"), "--config", str(overlay), "--print_config"])
    found = yaml.safe_load(capsys.readouterr().out)["trainer"]["logger"]
    assert [logger["class_path"].rpartition(".")[2] for logger in found] == ["WandbLogger", "CSVLogger"]
