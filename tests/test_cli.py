"""The commands as a user types them."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from safetensors.numpy import load_file

from ccd_lightning import cli
from ccd_lightning.cli import main
from ccd_lightning.trainer import StreamTrainer

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    *("--data.source.users", "150", "--data.source.items", "100", "--data.source.interactions", "3500"),
    *("--data.source.blocks", "2", "--trainer.accelerator", "cpu", "--model.ks", "[20]"),
    *(f"--trainer.plan.{kind}.max_epochs=1" for kind in ("base", "first_distillation", "student_update")),
    *(f"--trainer.plan.{kind}.max_epochs=1" for kind in ("teacher_update", "distillation")),
]
CONFIG = ["--config", str(ROOT / "configs" / "ccd.yaml")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    main(["fit", *CONFIG, *SMALL, "--trainer.default_root_dir", str(folder)])
    return folder


def saved(run: Path) -> list[str]:
    return ["--config", str(run / "config.yaml"), "--ckpt_path", "last"]


def test_fit_writes_the_files_of_a_run(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    expected = {"config.yaml", "stream.json", "metrics.json", "metrics.csv", "report.html", "report.png", "checkpoints"}
    assert expected | {"users.parquet", "items.parquet"} <= names
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["trainer"]["plan"]["base"]["max_epochs"] == 1
    assert config["trainer"]["default_root_dir"] == str(run)


def test_fit_refuses_a_folder_that_holds_a_stream(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["fit", *CONFIG, *SMALL, "--trainer.default_root_dir", str(run)])
    assert error.value.code == 2
    assert "already holds a stream" in capsys.readouterr().err


def test_fit_goes_on_from_last(run: Path) -> None:
    before = json.loads((run / "metrics.json").read_text())
    main(["fit", *CONFIG, *SMALL, "--trainer.default_root_dir", str(run), "--ckpt_path", "last"])
    after = json.loads((run / "metrics.json").read_text())
    assert after["teacher"] == before["teacher"]


def test_test_measures_what_the_run_measured(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    main(["test", *saved(run)])
    printed = capsys.readouterr().out
    row = json.loads((run / "metrics.json").read_text())["teacher"]["recall@20"]["A"][-1]
    for block, value in enumerate(row):
        assert re.search(rf"^D{block} +{value:.4f} ", printed, re.MULTILINE)
    assert re.search(r"teacher +teacher +distilled +distilled", printed)
    assert "test/" not in printed and len(printed.splitlines()) < 20


def test_a_folder_of_checkpoints_means_its_newest_good_one(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def tested(where: Path | str) -> str:
        capsys.readouterr()
        main(["test", "--config", str(run / "config.yaml"), "--ckpt_path", str(where)])
        return capsys.readouterr().out

    assert tested(run / "checkpoints") == tested("last")
    kept = Path(shutil.copytree(run / "checkpoints", tmp_path / "kept"))
    before, newest = sorted(kept.glob("*.ckpt"))[-2:]
    newest.write_bytes(newest.read_bytes()[:-1000])
    with pytest.warns(UserWarning, match=f"Going on from {before.name} instead"):
        assert "test after block1-teacher_update-1" in tested(kept)


def test_predict_writes_raw_ids(run: Path) -> None:
    main(["predict", *saved(run), "--recommendations.k", "5"])
    table = pl.read_parquet(run / "recommendations.parquet")
    assert table.columns == ["user", "rank", "item", "score"]
    assert set(table["item"]) <= set(pl.read_parquet(run / "items.parquet")["raw"])
    assert table.group_by("user").len()["len"].max() == 5


def test_export_can_be_used_without_the_library(run: Path) -> None:
    main(["export", *saved(run)])
    export = run / "export"
    manifest = json.loads((export / "manifest.json").read_text())
    tensors = load_file(export / "student.safetensors")
    assert tensors["users"].shape == (manifest["num_users"], manifest["dim"])
    code = (export / "README.md").read_text().split("```python\n")[3].split("```")[0]
    printed = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=export, capture_output=True, text=True, check=True
    ).stdout
    users = pl.read_parquet(export / "users.parquet")
    assert users["id"].to_list() == list(range(manifest["num_users"]))
    scores = tensors["users"][0] @ tensors["items"].T
    best = pl.read_parquet(export / "items.parquet")["raw"].gather(np.argsort(-scores)[:20])
    assert str(best.to_list()) in printed


def test_export_writes_the_teacher_system_beside_the_student(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["export", *saved(run), "--role", "teacher", "--seen", "false"])
    assert f"The teacher is in {run / 'export_teacher'}." in capsys.readouterr().out
    manifest = json.loads((run / "export_teacher" / "manifest.json").read_text())
    assert manifest["backbone"] == "LightGCN + BPRMF"
    assert {"teacher.onnx", "teacher.pt2"} <= set(manifest["sha256"])
    assert "seen.parquet" not in manifest["sha256"]


def test_predict_for_the_users_of_a_file(run: Path, tmp_path: Path) -> None:
    everybody = pl.read_parquet(run / "users.parquet")["raw"].to_list()
    chosen = [everybody[index] for index in (40, 3, 77, 3)]
    pl.DataFrame({"user": chosen}).write_csv(tmp_path / "some.csv")
    output = tmp_path / "some.parquet"
    main(["predict", *saved(run), "--users", str(tmp_path / "some.csv"), "--recommendations.path", str(output)])
    main(["predict", *saved(run)])
    everything = pl.read_parquet(run / "recommendations.parquet")
    expected = everything.filter(pl.col("user").is_in(chosen))
    found = pl.read_parquet(output)
    assert found["user"].unique(maintain_order=True).to_list() == [everybody[index] for index in (3, 40, 77)]
    assert found.drop("score").equals(expected.drop("score"))
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-5)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"user": [1, 987654]}, "user 987654 is unknown"),
        ({"user": ["eve"]}, "holds strings, but the ids known so far are integers"),
        ({"who": [1]}, "has the columns who, but needs `user`"),
        (None, "there is no such file. Check `--users`."),
    ],
)
def test_predict_refuses_users_that_it_cannot_know(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], table: dict[str, list[int]] | None, message: str
) -> None:
    if table is not None:
        pl.DataFrame(table).write_csv(tmp_path / "some.csv")
    with pytest.raises(SystemExit) as error:
        main(
            [
                "predict",
                *saved(run),
                "--users",
                str(tmp_path / "some.csv"),
                "--recommendations.path",
                str(tmp_path / "o"),
            ]
        )
    assert error.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.plan.base.learning_rat", "1"], "learning_rat"),
        (
            ["--data.source.class_path", "ccd_lightning.data.BlockTable", "--data.source.path", "nowhere.parquet"],
            "nowhere.parquet",
        ),
        (["--trainer.plan.base.learning_rate=-1"], "learning_rate"),
        (["--ckpt_path", "last"], "no stream checkpoint"),
    ],
)
def test_mistakes_end_in_one_message_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as error:
        main(["fit", *CONFIG, "--trainer.default_root_dir", str(tmp_path / "run"), *arguments])
    assert error.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed


def test_help_lists_every_command_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as error:
        main(["--help"])
    assert error.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith("usage: python train.py COMMAND")
    listed = dict(re.findall(r"^ {4}(\w+) +(\S.*)$", told, re.MULTILINE))
    files = {path.stem for path in (ROOT / "ccd_lightning" / "commands").glob("*.py")} - {"__init__"}
    assert set(listed) == files | {"fit", "test", "predict", "export"}
    # The README lists the same commands.
    assert set(re.findall(r"^python train\.py (\w+) ", (ROOT / "README.md").read_text(), re.MULTILINE)) == set(listed)
    written = {name: import_module(f"ccd_lightning.commands.{name}").__doc__ for name in files}
    written |= {name: getattr(StreamTrainer, name).__doc__ for name in set(listed) - files}
    assert listed == {name: text.splitlines()[0] for name, text in written.items()}


@pytest.mark.parametrize("command", ["fit", "test", "predict", "export"])
def test_help_tells_what_every_argument_is(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main([command, "--help"])
    assert error.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: python train.py {command} --config FILE")
    assert len(told.partition("\n\n")[0].splitlines()) == 1
    options = re.split(r"\n  (?=--)", told)[1:]
    assert len(options) > 60
    for option in options:
        # Behind the names, and before the type, stands what it is.
        words = re.sub(r"\s+", " ", option.partition("(type:")[0]).split(" ", 2)
        assert len(words) == 3 and len(words[2]) > 8, option


def test_stages_have_optimizers_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", *CONFIG, "--optimizer", "Adam"])
    assert "There is no option `optimizer`" in capsys.readouterr().err


@pytest.mark.parametrize("by_lightning", [False, True])
def test_interruptions_end_without_a_traceback(monkeypatch: pytest.MonkeyPatch, by_lightning: bool) -> None:
    def interrupted(arguments: list[str]) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            if not by_lightning:
                raise
            sys.exit(1)

    monkeypatch.setattr(cli, "CCDCLI", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["fit"])
    assert ended.value.code == 128 + signal.SIGINT


def test_a_run_outlives_the_reader_of_its_log(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "fit",
        *CONFIG,
        *SMALL,
        "--trainer.default_root_dir",
        str(tmp_path / "run"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    told = process.stderr.read()
    assert process.wait() == 0, told
    assert json.loads((tmp_path / "run" / "stream.json").read_text())["status"] == "finished"
