"""The command as a process, and its refusals."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from ccd_lightning.cli import main
from ccd_lightning.commands import serve
from tests.exports import exported, stream

Run = Callable[[list[str]], None]
ROOT = Path(__file__).resolve().parents[2]


def test_serve_answers_until_it_is_stopped() -> None:
    command = [sys.executable, str(ROOT / "train.py"), "serve", str(exported()), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = re.findall(r"http://\S+", process.stdout.readline())[0]
    user = str(stream().stream.users.raw[0]).replace(" ", "%20")
    with urllib.request.urlopen(f"{url}/recommend/{user}?k=4") as answer:
        assert len(json.load(answer)["items"]) == 4
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode in (0, -signal.SIGTERM)


def test_serving_imports_no_training_parts() -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['train.py', 'serve', 'nowhere']\n"
        f"try: runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
        "except SystemExit: import ccd_lightning.serving.app\n"
        "print([name for name in ('torch', 'lightning', 'polars', 'onnx') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


MAINS = pytest.mark.parametrize("run", [main, serve.main], ids=["cli", "alone"])
"""The command line that knows every command, and the one of `train.py serve`, which imports less."""


@MAINS
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "cannot be read as the manifest of an export"),
        ([], "export"),
        (["export", "--poll", "0"], "`--poll` is 0.0, but must be above 0"),
        (["export", "--port", "-1"], "cannot be listened on"),
        (["export", "--port", "many"], "many"),
    ],
)
def test_mistakes_end_in_one_message(
    capsys: pytest.CaptureFixture[str], run: Run, arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as error:
        run(["serve", *(str(exported()) if argument == "export" else argument for argument in arguments)])
    assert error.value.code == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told and "usage" not in told


def test_a_port_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit):
        main(["serve", str(exported()), "--port", str(taken.getsockname()[1])])
    assert re.search(
        r"127.0.0.1:\d+ cannot be listened on .*name another `--host` or `--port`", capsys.readouterr().err
    )


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(SystemExit):
        main(["serve", str(exported())])
    told = capsys.readouterr().err
    assert "`serve` needs uvicorn, which is not installed: `pip install 'ccd-lightning[serve]'`" in told


@MAINS
def test_debug_raises(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read as the manifest"):
        run(["serve", str(tmp_path), "--debug"])


def test_interrupt_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(serve, "run", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(exported())])
    assert ended.value.code == 130
    assert not capsys.readouterr().err
