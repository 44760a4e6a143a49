"""What a refusal must look like."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ccd_lightning.cli import main

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("base", "first_distillation", "student_update", "teacher_update", "distillation")
SHORT = [f"--trainer.plan.{kind}.max_epochs=1" for kind in KINDS]
TINY = [
    *("--config", str(ROOT / "configs" / "ccd.yaml"), "--trainer.accelerator", "cpu", "--model.ks", "[5]", *SHORT),
    *("--data.source.users", "60", "--data.source.items", "50", "--data.source.interactions", "700"),
    *("--data.source.blocks", "2", "--report.figures", "false"),
]
"""A stream of two blocks that is learned in two seconds."""

LONGEST = 1000


def is_one_paragraph(message: str) -> bool:
    """Whether a message says something, at once and not at length."""
    return 10 <= len(message) <= LONGEST and "\n" not in message.strip() and "Traceback" not in message


def refusal(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one message of a command that ends with exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    printed = capsys.readouterr().err
    assert stop.value.code == 2, printed
    messages = re.findall(r"^error: (.*)", printed, flags=re.MULTILINE | re.DOTALL)
    assert len(messages) == 1, printed
    assert is_one_paragraph(messages[0]), printed
    assert "usage:" not in printed
    return messages[0].strip()


def files_in(folder: Path) -> dict[str, bytes]:
    """Everything below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
