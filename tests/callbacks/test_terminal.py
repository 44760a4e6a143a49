"""What people see of a fit in a real pseudo-terminal, and in a log."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path
from typing import NamedTuple

import pyte
import pytest

ROWS = 24
WIDTHS = {"narrow": 80, "wide": 140}
STAGES = {
    "block0-base-0": ("block 0 (1 of 2) · teacher 0 base", ["own"]),
    "block0-base-1": ("block 0 (1 of 2) · teacher 1 base", ["own"]),
    "block0-distillation": ("block 0 (1 of 2) · student distillation", ["own", "user_lists", "item_lists"]),
    "block1-student_update": ("block 1 (2 of 2) · student update", ["own", "replay"]),
    "block1-teacher_update-0": ("block 1 (2 of 2) · teacher 0 update", ["own", "replay"]),
    "block1-teacher_update-1": ("block 1 (2 of 2) · teacher 1 update", ["own", "replay"]),
    "block1-distillation": ("block 1 (2 of 2) · student distillation", ["own", "user_lists", "item_lists"]),
}
CHATTER = re.compile(r"Tip|lightning|GPU|TPU|Trainer|sync_dist|LOCAL_RANK|Params|Seed set|Warning|💡", re.IGNORECASE)


class Emulator(pyte.Screen):
    """Keeps the screen as it was whenever the title was set, and what did not fit on a line."""

    def __init__(self, columns: int) -> None:
        super().__init__(columns, ROWS)
        self.seen: dict[str, list[str]] = {}
        self.wrapped: list[str] = []

    def draw(self, data: str) -> None:
        if self.cursor.x + len(data) > self.columns:
            self.wrapped.append(data)
        super().draw(data)

    def set_title(self, param: str) -> None:
        self.seen[param] = [line.rstrip() for line in self.display]


class Shown(NamedTuple):
    folder: Path
    screens: dict[str, Emulator]
    log: str


def in_terminal(folder: Path) -> dict[str, Emulator]:
    """Run the worker in a pseudo-terminal that is narrow at first, then wide."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.environ.update(TERM="xterm-256color", LANG="C.UTF-8", OMP_NUM_THREADS="1")
        worker = Path(__file__).with_name("terminal_worker.py")
        os.execv(sys.executable, [sys.executable, str(worker)])
    screens = {}
    for name, columns in WIDTHS.items():
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        if screens:
            os.write(terminal, b"\n")
        screens[name] = Emulator(columns)
        stream = pyte.ByteStream(screens[name])
        while "over" not in screens[name].seen:
            written = read(terminal)
            assert written, "\n".join(screens[name].display)
            stream.feed(written)
    os.write(terminal, b"\n")
    while read(terminal):
        pass
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return screens


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        # Linux's way to say that nobody is at the other end.
        return b""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = tmp_path_factory.mktemp("terminal")
    screens = in_terminal(folder)
    return Shown(folder, screens, (folder / "log.txt").read_text())


@pytest.mark.parametrize("name", WIDTHS)
def test_terminal_shows_everything_at_one_glance_in_every_stage(shown: Shown, name: str) -> None:
    for number, (stage, (title, objectives)) in enumerate(STAGES.items(), start=1):
        for moment, state in ((stage, "epoch 2 of 2"), (f"{stage} measuring", "measuring")):
            text = "\n".join(shown.screens[name].seen[moment])
            panel = text[text.rindex("╭") : text.rindex("╯")]
            assert panel.count("│") == 8, "four lines between two bars each"
            assert f"╭─ {title} ─" in panel
            assert f"│ {state} " in panel
            losses = " ".join(rf"{objective} [\d.e-]+k?" for objective in objectives)
            assert re.search(rf"│ loss {losses} +│", panel)
            assert re.search(r"│ (valid|test) recall@20 0\.\d{4} ", panel)
            left = "" if (number, state) == (7, "measuring") else r" · about [\d.]+ s left"
            assert re.search(rf"│ stage {number} of 7 · [\d.]+ s elapsed{left} +│", panel)


@pytest.mark.parametrize("name", WIDTHS)
def test_terminal_wraps_no_line_and_is_left_clean(shown: Shown, name: str) -> None:
    screen = shown.screens[name]
    assert screen.wrapped == []
    assert not screen.cursor.hidden
    assert not re.search("[╭╮╰╯│]", "\n".join(screen.seen["over"]))


@pytest.mark.parametrize("name", WIDTHS)
def test_terminal_ends_with_the_table_on_the_screen(shown: Shown, name: str) -> None:
    metrics = json.loads((shown.folder / "runs" / name / "metrics.json").read_text())
    text = "\n".join(shown.screens[name].seen["over"])
    table = text.partition("test recall@20 after each block")[2]
    for role in ("teacher", "student", "distilled"):
        part = re.search(rf"{role} +LA.*?seconds[^\n]*(\nbytes[^\n]*)?", table, re.DOTALL)
        assert part
        curves = metrics[role]["recall@20"]
        for key, label in (("LA", "LA"), ("RA", "RA"), ("H", "H-mean")):
            assert re.search(rf"{label} +{curves[key][0]:.4f} +{curves[key][1]:.4f}", part[0])
    assert len(re.findall(r"bytes +[\d.]+ kB +[\d.]+ kB", table)) == 2
    assert f"everything is in runs/{name}" in table


def test_log_has_plain_lines_with_the_same_facts(shown: Shown) -> None:
    lines = shown.log.splitlines()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\xa0]", shown.log)
    assert not CHATTER.search(shown.log)
    stages = [line for line in lines if line.startswith("block")]
    for number, (line, (title, objectives)) in enumerate(zip(stages, STAGES.values(), strict=True), start=1):
        recall = "" if "distillation" in title else r" · valid recall@20 0\.\d{4}"
        losses = " ".join(rf"{objective} [\d.e-]+k?" for objective in objectives)
        times = rf"stage {number} of 7 · [\d.]+ s elapsed" + ("" if number == 7 else r" · about [\d.]+ s left")
        assert re.fullmatch(rf"{re.escape(title)} · 2 epochs in [\d.]+ s{recall} · loss {losses} · {times}", line)
    measured = [line for line in lines if " after block " in line]
    assert len(measured) == 6, "three roles after each of two blocks"
    assert len(lines) <= 1 + len(stages) + len(measured) + 21
    assert "H-mean" in shown.log and "seconds" in shown.log and "bytes" in shown.log
