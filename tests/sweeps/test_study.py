"""Sweeps of a stub that takes no time; that real trials work is shown beside, in tests/tracking."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from optuna.trial import TrialState

from ccd_lightning.callbacks import DistillationCallback
from ccd_lightning.cli import main
from ccd_lightning.sweeps import study as sweep_study
from ccd_lightning.sweeps.file import Sweep, read_sweep
from ccd_lightning.sweeps.start import own_values
from ccd_lightning.sweeps.study import best_settings, run_sweep

ROOT = Path(__file__).resolve().parents[2]
STUB = Path(__file__).with_name("stub.py")
GOOD = {"values": [0.1, 0.2, 0.3, 0.4]}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccd_lightning.sweeps.trial.POLL", 0.05)


def written(folder: Path, **changes: Any) -> Path:
    content = {
        "program": str(STUB),
        "method": "grid",
        "metric": {"name": "stream/student/H", "goal": "maximize"},
        "parameters": {"good": GOOD},
        **changes,
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def sweep_of(folder: Path, **changes: Any) -> Sweep:
    return read_sweep(written(folder, **changes))


def states(study: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in study.trials]


def test_grid_tries_every_value_once_and_finds_the_best(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path)
    study = run_sweep(sweep, tmp_path)
    assert sorted(trial.params["good"] for trial in study.trials) == GOOD["values"]
    assert study.best_value == pytest.approx(0.42)
    assert {trial.number: trial.user_attrs["folder"] for trial in study.trials} == {
        number: str(tmp_path / f"trial-{number:04d}") for number in range(4)
    }
    assert yaml.safe_load(best_settings(sweep, study)) == {"good": 0.4}


def test_a_trial_may_have_no_average_before_a_block_asks_somebody(tmp_path: Path) -> None:
    study = run_sweep(sweep_of(tmp_path, parameters={"do": {"value": "mute"}, "good": {"value": 0.3}}), tmp_path)
    assert states(study) == [TrialState.COMPLETE]
    assert study.best_value == pytest.approx(0.32)


def test_a_sweep_begins_with_the_values_of_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = sweep_of(
        tmp_path, method="bayes", parameters={"good": {"min": 0.1, "max": 0.9}, "do": {"value": "nothing"}}
    )
    study = run_sweep(sweep, tmp_path, trials=2)
    assert study.trials[0].params == {"good": 0.5}
    assert study.trials[1].params != {"good": 0.5}
    assert best_settings(sweep, study).startswith(f"# stream/student/H {study.best_value} in trial-000")
    assert study.best_value >= 0.52
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"sweep mine: 2 trials into {tmp_path}"
    assert told[1] == "trial-0000 begins · do=nothing good=0.5"
    assert [re.split(" begins|:", line)[0] for line in told[2:]] == [
        *("1 of 2 trials done, trial-0000", "trial-0001", "2 of 2 trials done, trial-0001")
    ]
    again = run_sweep(sweep, tmp_path, trials=3)
    assert [trial.params["good"] == 0.5 for trial in again.trials] == [True, False, False]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"good": {"min": 0.6, "max": 0.9}}, "own `good: 0.5` is no value of the sweep: widen the sweep"),
        ({"good": GOOD}, "own `good: 0.5` is no value of the sweep"),
        ({"other": {"min": 0.6, "max": 0.9}}, "the configuration has no `other`"),
    ],
)
def test_values_of_the_configuration_outside_the_sweep_are_no_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], parameters: dict[str, Any], message: str
) -> None:
    study = run_sweep(sweep_of(tmp_path, method="random", parameters=parameters), tmp_path, trials=1)
    assert states(study) == [TrialState.COMPLETE]
    told = capsys.readouterr().err
    assert "The sweep does not begin with the configuration's own values: " in told
    assert message in told


def test_a_program_that_does_not_tell_its_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "mute.py").write_text("raise SystemExit('error: no such option')")
    with pytest.raises(
        MisconfigurationException, match=r"mute.py does not tell .* \(error: no such option\): let it take"
    ):
        own_values(sweep_of(tmp_path, program=str(tmp_path / "mute.py")))


@pytest.mark.slow
def test_the_shipped_sweep_begins_with_what_the_shipped_configuration_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sweep = read_sweep(Path("configs/sweep.yaml"))
    config = yaml.safe_load(Path("configs/ccd.yaml").read_text())
    plan, given, defaults = config["trainer"]["plan"], config["distillation"], DistillationCallback()
    given = given.get("init_args", given)
    assert own_values(sweep) == {
        "trainer.plan.student_update.learning_rate": plan["student_update"]["learning_rate"],
        "trainer.plan.distillation.learning_rate": plan["distillation"]["learning_rate"],
        "distillation.student_replay.stability": given["student_replay"]["stability"],
        "distillation.student_replay.plasticity": given["student_replay"]["plasticity"],
        "distillation.stability_momentum": defaults.momenta["stability"],
        "distillation.exclusion": defaults.exclusion,
    }


def test_finished_trials_are_not_repeated(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, method="random")
    run_sweep(sweep, tmp_path, trials=2)
    before = [trial.datetime_complete for trial in run_sweep(sweep, tmp_path, trials=2).trials]
    after = [trial.datetime_complete for trial in run_sweep(sweep, tmp_path, trials=3).trials]
    assert len(before) == 2
    assert len(after) == 3
    assert after[:2] == before


@pytest.mark.parametrize(
    ("way", "message"),
    [("crash", "the disk is full"), ("kill", "killed by SIGKILL"), ("diverge", "the objective `own` was not finite")],
)
def test_a_trial_that_fails_keeps_its_message_and_the_sweep_goes_on(tmp_path: Path, way: str, message: str) -> None:
    sweep = sweep_of(tmp_path, parameters={"do": {"values": [way, "nothing"]}})
    study = run_sweep(sweep, tmp_path)
    of = {trial.params["do"]: trial for trial in study.trials}
    assert of["nothing"].state is TrialState.COMPLETE
    assert of[way].state is TrialState.FAIL
    assert message in of[way].user_attrs["error"]


@pytest.mark.parametrize("values", [{"values": [1, 2]}, {"value": 1}, {"min": 1.0, "max": 2.0}])
def test_a_mistyped_parameter_is_told_once_before_the_trials(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], values: dict[str, Any]
) -> None:
    parameters = {"good": {"min": 0.1, "max": 0.9}, "mistyped": values}
    path = written(tmp_path, method="random", parameters=parameters)
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "--config", str(path), "--folder", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: No trial can begin: There is no option `mistyped`; did you mean `good`?\n"
    assert not list(tmp_path.glob("out/trial-*"))
    # Nothing was tried, so the mended file may take its place.
    written(tmp_path, method="random", parameters={"good": {"min": 0.1, "max": 0.9}})
    main(["sweep", "--config", str(path), "--folder", str(tmp_path / "out"), "--trials", "1"])
    assert "H 0.52" in capsys.readouterr().out


def test_a_mended_file_may_turn_the_goal_round_before_the_first_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metric, good = "stream/student/H", {"values": [0.1, 0.5, 0.9]}
    command = ["sweep", "--config", str(tmp_path / "mine.yaml"), "--folder", str(tmp_path / "out"), "--trials", "4"]
    mistyped = {"good": good, "mistyped": {"value": 1}}
    written(tmp_path, method="random", metric={"name": metric, "goal": "minimize"}, parameters=mistyped)
    with pytest.raises(SystemExit):
        main(command)
    written(tmp_path, method="random", metric={"name": metric, "goal": "maximize"}, parameters={"good": good})
    main(command)
    best = re.search(r"H (\S+) in", capsys.readouterr().out)
    tried = [
        json.loads(path.read_text())["student"]["recall@20"]["H"][-1] for path in tmp_path.glob("out/*/metrics.json")
    ]
    assert best is not None and float(best[1]) == pytest.approx(max(tried))
    # Once there are trials, the other goal is another sweep.
    written(tmp_path, method="random", metric={"name": metric, "goal": "minimize"}, parameters={"good": good})
    with pytest.raises(SystemExit):
        main(command)
    assert "holds a sweep mine with another command, metric or parameters" in capsys.readouterr().err


def test_a_mistake_that_a_trial_finds_ends_the_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A grid is not asked for the configuration's own values.
    path = written(tmp_path, parameters={"mistyped": {"values": [1, 2, 3]}})
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            main(["sweep", "--config", str(path), "--folder", str(tmp_path / "out")])
        assert ended.value.code == 2
        told = capsys.readouterr().err
        assert told.count("There is no option `mistyped`") == 1
        assert re.search(r"^error: trial-0000 is refused: .*Mend it, and the same command goes on", told, re.MULTILINE)
        # The refused trial is the one that is tried again.
        assert [folder.name for folder in tmp_path.glob("out/trial-*")] == ["trial-0000"]


def test_a_sweep_without_a_good_trial_says_so(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, parameters={"do": {"value": "crash"}}, run_cap=1)
    with pytest.raises(MisconfigurationException, match=r"None of the 1 trials.*the disk is full"):
        best_settings(sweep, run_sweep(sweep, tmp_path))


@pytest.mark.parametrize("stopping", ["hyperband", "median"])
def test_hopeless_trials_are_stopped_by_block(tmp_path: Path, stopping: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The good trials come first, and the bad one hangs after D_1 until it is stopped.
    found = {"good": {"value": 0.5}, "do": {"value": "nothing"}}
    changes = {"early_terminate": {"type": stopping, "min_iter": 1, "eta": 2}, "method": "random"}
    monkeypatch.setattr(sweep_study, "_FIXED", "not compared")
    run_sweep(sweep_of(tmp_path, parameters=found, **changes), tmp_path, trials=5)
    monkeypatch.setattr(sweep_study, "_FIXED", "not compared either")
    found = {"good": {"value": 0.1}, "do": {"value": "hang"}}
    study = run_sweep(sweep_of(tmp_path, parameters=found, **changes), tmp_path, trials=6)
    assert states(study) == [TrialState.COMPLETE] * 5 + [TrialState.PRUNED]
    assert study.trials[5].intermediate_values == pytest.approx({0: 0.1, 1: 0.11})


def test_a_changed_sweep_does_not_go_on_with_the_old_one(tmp_path: Path) -> None:
    run_sweep(sweep_of(tmp_path), tmp_path, trials=1)
    with pytest.raises(MisconfigurationException, match=r"holds a sweep mine with another command.*another `name`"):
        run_sweep(sweep_of(tmp_path, parameters={"good": {"values": [0.1, 0.9]}}), tmp_path, trials=1)


def test_workers_share_the_trials(tmp_path: Path) -> None:
    path = written(tmp_path, method="random", run_cap=4)
    workers = [started(path, tmp_path) for _ in range(2)]
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    found = optuna.load_study(study_name="mine", storage=f"sqlite:///{tmp_path / 'study.db'}").trials
    # The two may both see the last place free.
    assert 4 <= len(found) <= 5
    assert {trial.state for trial in found} == {TrialState.COMPLETE}
    assert len({trial.user_attrs["folder"] for trial in found}) == len(found)


@pytest.mark.parametrize("way", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_sweep_goes_on_with_its_trial(
    tmp_path: Path, way: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep_study, "HEARTBEAT", 1)
    path = written(tmp_path, parameters={"do": {"value": "hang"}}, run_cap=1)
    worker, trial = started(path, tmp_path), tmp_path / "trial-0000"
    wait_for(lambda: (trial / "checkpoints" / "00002-block1-distillation.ckpt").is_file())
    os.kill(worker.pid, way)
    worker.join(60)
    if way == signal.SIGKILL:
        # The trial outlives its sweep, and is waited for until somebody ends it.
        os.kill(holder_of(trial / ".lock"), signal.SIGTERM)
    study = run_sweep(read_sweep(path), tmp_path)
    assert states(study) == [TrialState.FAIL, TrialState.COMPLETE]
    assert study.trials[1].user_attrs["folder"] == str(trial)
    # What was cut off counts once, by the name of its folder.
    assert "1 of 1 trials done, trial-0000: stream/student/H" in capsys.readouterr().err
    assert "in trial-0000, the best of 1 trials" in best_settings(read_sweep(path), study)
    assert "--ckpt_path=last" in (trial / "output.txt").read_text().splitlines()[-1]


def started(path: Path, folder: Path) -> Any:
    worker = get_context("fork").Process(target=run_sweep, args=(read_sweep(path), folder))
    worker.start()
    return worker


def wait_for(condition: Any, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def holder_of(lock: Path) -> int:
    """The process that has a file open."""
    for process in psutil.process_iter():
        try:
            if any(link.resolve() == lock for link in Path(f"/proc/{process.pid}/fd").iterdir()):
                return process.pid
        except OSError:
            continue
    raise AssertionError(f"nobody holds {lock}")


def test_the_command_prints_settings_that_overlay_a_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["sweep", "--config", str(written(tmp_path, parameters={"good": GOOD, "trainer.plan.teacher_every": {"value": 2}})),
          "--folder", str(tmp_path / "out"), "--trials", "2"])  # fmt: skip
    printed = capsys.readouterr()
    assert yaml.safe_load(printed.out)["trainer"] == {"plan": {"teacher_every": 2}}
    assert printed.out == (tmp_path / "out" / "best.yaml").read_text()
    assert printed.err.count("stream/student/H") == 2
    assert printed.err.endswith(f"\nbest settings in {tmp_path / 'out' / 'best.yaml'}\n")


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--trials", "0"], "`--trials` is 0"), (["--config", "nowhere.yaml"], "does not exist")]
)
def test_mistakes_of_the_command_are_told(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main(["sweep", "--config", str(written(tmp_path)), "--folder", str(tmp_path / "out"), *arguments])
    assert error.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_interrupted_command_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_study, "run_sweep", interrupted)
    with pytest.raises(SystemExit) as error:
        main(["sweep", "--config", str(written(tmp_path)), "--folder", str(tmp_path)])
    assert error.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_the_command_asks_for_optuna(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("ccd_lightning.commands.sweep.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["sweep", "--config", "configs/sweep.yaml"])
    assert "needs Optuna" in capsys.readouterr().err


@pytest.mark.parametrize(
    "storage", ["nonsense", "sqlite:////nowhere/at/all.db", "postgresql://user:word@localhost/trials"]
)
def test_a_database_that_cannot_be_used_is_one_message(tmp_path: Path, storage: str) -> None:
    with pytest.raises(MisconfigurationException, match=r"cannot be used .*name another one with `--storage`"):
        run_sweep(sweep_of(tmp_path), tmp_path, storage)


def test_a_damaged_database_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(MisconfigurationException, match=r"study.db cannot be used .*remove what is damaged"):
        run_sweep(sweep_of(tmp_path), tmp_path)
    assert (tmp_path / "study.db").exists()
