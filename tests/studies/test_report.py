"""Tables of a study whose runs are written by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from matplotlib.image import imread
from scipy import stats

from ccd_lightning.studies import Method, Study, figures, write_report
from ccd_lightning.studies.results import SCHEMA, best_baseline, long_table, shown

from .conftest import CCD

BLOCKS = 3
METHODS = {"ccd": Method(), "plain": Method(), "sampled": Method(), "teachers": Method(models=["teacher"])}


def curve(values: np.ndarray) -> dict[str, Any]:
    return {"A": [], "LA": (values + 0.1).tolist(), "RA": (values - 0.1).tolist(), "H": values.tolist()}


def values_of(method: str, seed: int, model: str, split: str) -> np.ndarray:
    """H-means after each block: on the test split `plain` is the best baseline, on validation `sampled` is."""
    level = {"ccd": 0.5, "plain": 0.4, "sampled": 0.3, "teachers": 0.1}[method]
    if split == "valid" and method == "sampled":
        level = 0.6
    noise = np.random.default_rng([seed, len(method), len(model)]).normal(0, 0.01, BLOCKS)
    return level + noise - 0.02 * np.arange(BLOCKS)


def write_run(folder: Path, method: str, seed: int, status: str = "finished") -> None:
    def of_split(split: str) -> dict[str, Any]:
        roles = ("teacher", "student", "distilled")
        return {
            role: {metric: curve(values_of(method, seed, role, split)) for metric in ("recall@20", "ndcg@20")}
            for role in roles
        }

    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({**of_split("test"), "valid": of_split("valid")}))
    (folder / "stream.json").write_text(json.dumps({"status": status}))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Three seeds of four methods; one run is not finished, one has not begun."""
    found = Study(
        base=[CCD],
        methods=dict(METHODS),
        output=str(tmp_path),
        baselines=["plain", "sampled", "teachers"],
        published={"teacher": [0.1, 0.2]},
    )
    for run in found.runs:
        if (run.method, run.seed) == ("plain", 2):
            continue
        status = "running" if (run.method, run.seed) == ("sampled", 2) else "finished"
        write_run(run.folder, run.method, run.seed, status)
    return found


def test_averages_that_nobody_was_asked_for_have_no_row(study: Study) -> None:
    path = next(run.folder for run in study.runs if run.name == "ccd-0") / "metrics.json"
    content = json.loads(path.read_text())
    content["student"]["recall@20"].update(LA=[None, 0.2, 0.3], RA=[None, 0.2, 0.3], H=[None, 0.2, 0.3])
    path.write_text(json.dumps(content))
    rows = shown(long_table(study), study, "student").filter(pl.col("method") == "ccd", pl.col("seed") == 0)
    assert rows["block"].to_list() == [1, 2]
    write_report(study, {})


def test_long_table_has_one_row_for_everything_measured(study: Study) -> None:
    table = long_table(study)
    assert dict(table.schema) == SCHEMA
    # 10 finished runs, 3 models, 2 splits, 2 metrics.
    assert table.height == 10 * 3 * 2 * BLOCKS * 2
    row = table.filter(method="plain", seed=1, model="student", split="valid", block=2, metric="ndcg@20")
    assert row["H"].to_list() == [values_of("plain", 1, "student", "valid")[2]]


def test_a_method_of_teachers_alone_shows_no_student(study: Study) -> None:
    table = long_table(study)
    assert "teachers" in shown(table, study, "teacher")["method"].unique()
    assert "teachers" not in shown(table, study, "student")["method"].unique()


def test_the_best_baseline_is_chosen_by_validation_alone(study: Study) -> None:
    table = long_table(study)
    assert best_baseline(table, study, "student") == "sampled"
    assert best_baseline(table.filter(split="test"), study, "student") is None


def test_baselines_are_compared_on_the_seeds_that_all_of_them_have(study: Study) -> None:
    table = long_table(study)
    # A seed that `plain` alone has, and in which it is beyond compare.
    lucky = table.filter(pl.col("method") == "plain", pl.col("seed") == 0).with_columns(seed=pl.lit(7, pl.Int64), H=9.0)
    assert best_baseline(pl.concat([table, lucky]), study, "student") == "sampled"
    alone = pl.concat([table.filter(pl.col("seed") == 0, pl.col("method") == "sampled"), lucky])
    assert best_baseline(alone, study, "student") == "plain"


def test_of_equal_baselines_the_first_is_chosen(study: Study) -> None:
    table = long_table(study).filter(pl.col("method") == "sampled")
    twin = table.with_columns(method=pl.lit("plain"))
    assert best_baseline(pl.concat([table, twin]), study, "teacher") == "plain"


def cells(text: str, head: str, method: str) -> list[str]:
    """The cells of a method's line in the table whose first column has this head."""
    part = text[text.index(f"| {head} |") :].split("\n\n")[0]
    (line,) = [line for line in part.splitlines() if line.startswith(f"| {method} |")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


def interval(values: list[float]) -> tuple[float, float]:
    found = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return float(np.mean(values)), (found.high - found.low) / 2


def test_tables_hold_means_intervals_and_paired_differences(study: Study) -> None:
    write_report(study, {})
    text = (study.folder / "results.md").read_text()
    seeds, *found = cells(text, "student, retained average", "ccd")
    assert seeds == "3"
    for block, cell in enumerate(found):
        mean, half = interval([values_of("ccd", seed, "student", "test")[block] - 0.1 for seed in range(3)])
        assert cell == f"{mean:.4f} ± {half:.4f}"
    # `sampled` has two finished seeds, so the difference is of these.
    seeds, *found = cells(text, "teacher, H-mean minus that of sampled", "ccd")
    assert seeds == "2"
    for block, cell in enumerate(found):
        pairs = [[values_of(name, seed, "teacher", "test")[block] for seed in (0, 1)] for name in ("ccd", "sampled")]
        mean, half = interval((np.array(pairs[0]) - np.array(pairs[1])).tolist())
        assert cell == f"{mean:+.4f} ± {half:.4f}"


def test_what_is_missing_is_told(study: Study) -> None:
    write_report(study, {"plain-2": "the disk is full"})
    text = (study.folder / "results.md").read_text()
    assert "- plain-2: failed: the disk is full" in text
    assert "- sampled-2: not begun" in text
    states = {entry["name"]: entry for entry in json.loads((study.folder / "study.json").read_text())["runs"]}
    assert states["plain-2"]["message"] == "the disk is full"
    assert states["ccd-0"]["status"] == "finished"


def test_parquet_is_the_long_table(study: Study) -> None:
    write_report(study, {})
    assert pl.read_parquet(study.folder / "results.parquet").equals(long_table(study))


def test_gains_are_drawn(study: Study) -> None:
    write_report(study, {})
    picture = imread(study.folder / "gain.png")
    assert picture.shape[1] > 1.5 * picture.shape[0]
    blue = (np.abs(picture[..., :3] - np.array([0x3D, 0x7F, 0xB8]) / 255).max(-1) < 0.05).sum()
    assert blue > 100


def test_the_students_published_gain_stands_beside_the_deployed_students_too(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, list[list[float]]] = {}

    def look(draws: Sequence[Any], **_: Any) -> Any:
        whole, axes = plt.subplots(ncols=len(draws))
        for draw, place in zip(draws, axes, strict=True):
            draw(place)
            model = place.get_title(loc="left").split(":")[0]
            drawn[model] = [list(line.get_ydata()) for line in place.get_lines() if line.get_linestyle() == "--"]
        return whole

    monkeypatch.setattr(figures, "sheet", look)
    study.published = {"teacher": [0.1, 0.2], "student": [0.3, 0.4]}
    write_report(study, {})
    assert drawn == {"teacher": [[0.1, 0.2]], "student": [[0.3, 0.4]], "distilled": [[0.3, 0.4]]}


def test_a_study_without_any_result_is_told_as_such(tmp_path: Path) -> None:
    empty = Study([CCD], {"ccd": Method()}, str(tmp_path), seeds=[0], baselines=[])
    write_report(empty, {})
    assert "- ccd-0: not begun" in (tmp_path / "results.md").read_text()
    assert not (tmp_path / "gain.png").exists()
