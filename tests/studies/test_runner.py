"""How runs are carried out, with played runs; and that sharing D_0 changes no number, with real ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

from ccd_lightning.cli import main
from ccd_lightning.studies import Study, carry_out
from ccd_lightning.studies.runner import is_finished

from ..reliability.conftest import assert_same_end
from .conftest import CCD, TINY, calls_of, overlay

Played = Callable[..., Study]
SAME = {"ccd": "{trainer: {plan: {teacher_every: 1}}}", "other": "{trainer: {plan: {teacher_every: 2}}}"}
UNLIKE = {"ccd": "{model: {a: 1}}", "other": "{model: {a: 2}}"}


@pytest.mark.parametrize("jobs", [1, 2])
def test_runs_of_a_family_begin_after_the_first_block_of_its_first_run(played: Played, jobs: int) -> None:
    study = played(SAME, seeds=[0, 1], jobs=jobs)
    assert carry_out(study) == {}
    for first, second in ((study.runs[0], study.runs[1]), (study.runs[2], study.runs[3])):
        assert calls_of(first) == ["begin"]
        assert calls_of(second) == [str(first.folder / "checkpoints" / "00003-block0-distillation.ckpt")]


def test_other_families_begin_by_themselves(played: Played) -> None:
    study = played(UNLIKE)
    carry_out(study)
    assert [calls_of(run) for run in study.runs] == [["begin"], ["begin"]]


def test_runs_begin_with_the_first_block_of_another_studys_run_in_the_same_place(played: Played) -> None:
    first = played({"ccd": SAME["ccd"]})
    carry_out(first)
    (first.pool / "a_study").mkdir()
    (first.pool / "a_study" / "study.json").write_text('{"runs": [], "metric": "recall@20"}')
    second = played({"other": SAME["other"], "unlike": UNLIKE["other"]})
    carry_out(second)
    assert calls_of(second.runs[0]) == [str(first.runs[0].folder / "checkpoints" / "00003-block0-distillation.ckpt")]
    assert calls_of(second.runs[1]) == ["begin"]
    # Other data make another D_0.
    third = played({"third": SAME["other"]}, arguments=["--data.source.path=b.parquet"])
    carry_out(third)
    assert calls_of(third.runs[0]) == ["begin"]


def test_nobody_waits_for_the_first_block_of_a_run_that_took_it_from_elsewhere(played: Played) -> None:
    options = {"jobs": 2, "arguments": ["--pause=1"]}
    giver, taker = played(SAME, **options).runs
    carry_out(played(SAME, **options))
    # The one goes on from a later stage, and what it began with is no longer there.
    (taker.folder / "stream.json").write_text('{"status": "running"}')
    checkpoint = taker.folder / "checkpoints" / "00003-block0-distillation.ckpt"
    checkpoint.rename(checkpoint.with_name("00004-block1-student_update.ckpt"))
    shutil.rmtree(giver.folder)
    assert carry_out(played({"other": SAME["other"], "ccd": SAME["ccd"]}, **options)) == {}
    assert calls_of(taker)[-1] == "last"
    # At once: whoever waits finds the checkpoint of D_0 that a played run leaves whenever it is called.
    assert calls_of(giver) == ["begin"]


def test_finished_runs_are_kept_and_stopped_ones_go_on(played: Played) -> None:
    study = played(UNLIKE)
    carry_out(study)
    (study.runs[1].folder / "stream.json").write_text('{"status": "running"}')
    carry_out(played(UNLIKE))
    assert [calls_of(run) for run in study.runs] == [["begin"], ["begin", "last"]]


def test_a_failed_run_is_told_the_others_go_on_and_it_is_tried_again(played: Played) -> None:
    study = played({"bad": "{model: {a: 1}}", "good": "{model: {a: 1}}"})
    output = study.runs[0].folder / "run.log"
    assert carry_out(study) == {"bad-0": f"the settings are wrong (exit code 2; its output is in {output})"}
    assert [is_finished(run) for run in study.runs] == [False, True]
    # The family's first run left nothing, so the next one began by itself; now it has something to share.
    assert calls_of(study.runs[1]) == ["begin"]
    carry_out(study)
    assert calls_of(study.runs[0])[1].endswith("good-0/checkpoints/00003-block0-distillation.ckpt")


def test_a_run_that_is_killed_is_not_told_by_what_an_earlier_attempt_said(played: Played) -> None:
    study = played({"bad": "{model: {a: 1}}", "good": "{model: {a: 2}}"})
    carry_out(study)
    bad = study.runs[0].folder
    (bad / "kill").touch()
    assert carry_out(study) == {"bad-0": f"killed by SIGKILL; its output is in {bad / 'run.log'}"}
    (bad / "kill").unlink()
    (bad / "quiet").touch()
    assert carry_out(study) == {"bad-0": f"no word (exit code 3; its output is in {bad / 'run.log'})"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_let_runs_save_and_end_the_study(played: Played, number: signal.Signals) -> None:
    study = played(UNLIKE, jobs=2, arguments=["--pause=60"])

    def interrupt() -> None:
        while not all((run.folder / "working").exists() for run in study.runs):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt).start()
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        carry_out(study)
    assert stopped.value.code == 128 + number
    assert all((run.folder / "saved").exists() for run in study.runs)
    assert signal.getsignal(number) is before


def test_two_processes_do_not_work_on_the_same_runs(played: Played) -> None:
    study = played(UNLIKE, arguments=["--pause=60"], jobs=2)
    seen: list[str] = []

    def second() -> None:
        while not (study.runs[0].folder / "working").exists():
            time.sleep(0.01)
        with pytest.raises(
            MisconfigurationException, match=r"Another process works in .*: wait for it, or name another.*`--output`"
        ):
            carry_out(played(UNLIKE, arguments=["--pause=60"]))
        shared = replace(study, output=str(study.folder / "other"), runs_in=str(study.pool))
        with pytest.raises(MisconfigurationException, match=r"or name another folder with `--runs_in`"):
            carry_out(shared)
        seen.append("refused")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=second).start()
    with pytest.raises(SystemExit):
        carry_out(study)
    assert seen == ["refused"]


def test_runs_of_other_settings_are_not_mixed_in(played: Played) -> None:
    carry_out(played({"ccd": "{model: {a: 1}}"}))
    with pytest.raises(ValueError, match="ccd-0 was made with other settings than the study now has for ccd: remove"):
        carry_out(played({"ccd": "{model: {a: 2}}"}))
    with pytest.raises(ValueError, match="was made with other settings"):
        carry_out(played({"ccd": "{model: {a: 1}}"}, arguments=["--more=1"]))


def test_runs_note_how_they_were_made(played: Played) -> None:
    study = played({"ccd": "{model: {a: 1}}"}, seeds=[4])
    carry_out(study)
    stamp = json.loads((study.runs[0].folder / "study.json").read_text())
    assert (stamp["method"], stamp["seed"], stamp["settings"]["model"]) == ("ccd", 4, {"a": 1})
    assert stamp["command"][0] == "fit"
    assert stamp["began_with"] is None


MANY = {
    "trainer": {"plan": {"teacher_update": {"past": 1.0}, "cycle": ["student_update", "teacher_update"]}},
    "distillation": {"exclusion": 3, "observed": "cumulative", "student_replay": {"eps": 0.5, "decay": None}},
}


def fit(folder: Path, *arguments: str) -> Path:
    main(["fit", *arguments, *TINY, "--trainer.default_root_dir", str(folder)])
    return folder


@pytest.fixture(scope="module")
def leader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the base configuration."""
    return fit(tmp_path_factory.mktemp("leader") / "run", "--config", CCD)


@pytest.mark.parametrize(
    "content", [MANY, {"trainer": {"plan": {"cycle": ["base", "distillation"]}}}], ids=["many", "full_batch"]
)
def test_going_on_from_a_shared_first_block_is_bit_for_bit_the_methods_own_run(
    tmp_path: Path, leader: Path, content: dict[str, Any]
) -> None:
    method = ["--config", CCD, "--config", overlay(tmp_path, "method", content)]
    after_base = leader / "checkpoints" / "00003-block0-distillation.ckpt"
    own = fit(tmp_path / "own", *method)
    shared = fit(tmp_path / "shared", *method, "--ckpt_path", str(after_base))
    # The folder of the run that goes on does not hold what it began with.
    (own / "checkpoints" / after_base.name).unlink()
    assert_same_end(shared, own)
