"""Studies as they are written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from ccd_lightning.commands import study as command
from ccd_lightning.studies import Method, Run, Study

from ..helpers import CONFIGS
from .conftest import CCD

STUDIES = sorted(path for path in (CONFIGS / "studies").glob("*.yaml") if "output:" in path.read_text())


def read(path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(CONFIGS.parent)
    parser = ArgumentParser(exit_on_error=False)
    command.add_arguments(parser)
    return command.study_of(parser.parse_args(["--config", str(path)]))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_names_files_that_exist(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = read(path, monkeypatch)
    assert len(study.runs) == len(study.methods) * len(study.seeds)
    assert len({run.folder for run in study.runs}) == len(study.runs)
    assert study.ours in study.methods


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_methods_of_a_study_differ(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = read(path, monkeypatch)
    said: dict[str, str] = {}
    for run in (run for run in study.runs if run.seed == study.seeds[0]):
        # A default of the configuration that an overlay ought to set back would make two methods of different names the same.
        settings = json.dumps(run.settings, sort_keys=True)
        assert said.setdefault(settings, run.method) == run.method


@pytest.mark.parametrize(
    ("name", "student"),
    [("yelp", [0.010, 0.008, 0.010, 0.011, 0.010]), ("gowalla", [0.003, 0.011, 0.024, 0.027, 0.026])],
)
def test_studies_of_the_papers_streams_know_its_gains(
    name: str, student: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = read(CONFIGS / "studies" / f"{name}.yaml", monkeypatch)
    assert list(study.published_gains["student"]) == student
    assert [len(gains) for gains in study.published_gains.values()] == [5, 5]


def test_ablations_share_the_first_block_unless_they_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    study = read(CONFIGS / "studies" / "yelp_ablations.yaml", monkeypatch)
    families = {run.method: run.family for run in study.runs if run.seed == 0}
    alone = {name for name, family in families.items() if list(families.values()).count(family) == 1}
    assert alone == {"no_item_lists", "propagated"}


def test_a_run_is_a_command_that_can_be_typed() -> None:
    run = Run("ccd", 3, Path("out/runs/ccd-3"), [CCD, "over.yaml"], ["--model.ks=[20]"], {})
    expected = ["fit", "--config", CCD, "--config", "over.yaml", "--model.ks=[20]", "--seed_everything=3"]
    assert run.command("last") == [*expected, "--trainer.default_root_dir=out/runs/ccd-3", "--ckpt_path=last"]
    assert run.command(None) == [*expected, "--trainer.default_root_dir=out/runs/ccd-3"]


def test_studies_can_share_runs(tmp_path: Path) -> None:
    first = Study([CCD], {"ccd": Method()}, str(tmp_path / "a"))
    second = Study([CCD], {"ccd": Method()}, str(tmp_path / "b"), runs_in=str(tmp_path / "a" / "runs"))
    assert [run.folder for run in first.runs] == [run.folder for run in second.runs]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": []}, "`base` is empty, but a study needs at least one"),
        ({"methods": {}}, "`methods` is empty"),
        ({"seeds": []}, "`seeds` is empty"),
        ({"seeds": [1, 1]}, r"`seeds` is \[1, 1\], but each seed counts once"),
        ({"jobs": 0}, "`jobs` is 0, but must be at least 1"),
        ({"threads": 0}, "`threads` is 0, but must be at least 1"),
        ({"ours": "other"}, "`ours` and `baselines` name other, but the methods are ccd"),
        ({"baselines": ["none"]}, "`ours` and `baselines` name none, but the methods are ccd"),
        ({"methods": {"ccd": Method(), "a/b": Method()}}, "A method is called 'a/b', but names become folders"),
        ({"published": "yelpp"}, "`published` is 'yelpp', but the paper's streams are yelp, gowalla"),
        ({"published": {"pupil": [0.1]}}, "`published` names pupil, but gains are of teacher, student"),
    ],
)
def test_studies_that_cannot_be_run_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Study(**{"base": [CCD], "methods": {"ccd": Method()}, "output": "out", **options})


@pytest.mark.parametrize("models", [[], ["pupil"]])
def test_methods_speak_of_models_that_are_measured(models: list[str]) -> None:
    with pytest.raises(ValueError, match=r"`models` is .*, but must name some of teacher, student"):
        Method(models=models)
