"""The table of a test against averages that are taken by hand."""

from __future__ import annotations

import io
import re
from statistics import harmonic_mean, mean

import pytest
from rich.console import Console

from ccd_lightning.record import Results, StreamRecord
from ccd_lightning.reporting.tested import averages_of, models_table
from ccd_lightning.reporting.units import NOTHING
from ccd_lightning.types import Stage, StageKind

MATRIX = [[0.4], [0.3, 0.5], [0.2, 0.4, 0.6]]


def results(row: list[float], cutoff: int = 20) -> Results:
    found = {}
    for block, value in enumerate(row):
        metrics = {f"recall@{cutoff}": value, f"ndcg@{cutoff}": value / 2, "users": 9.0, "unknown_users": 0.0}
        found[block] = {group: metrics for group in ("all", "new_users", "new_items")}
    return found


def recorded(blocks: int, *kinds: StageKind, role: str = "distilled") -> StreamRecord:
    record = StreamRecord()
    for block in range(blocks):
        record.add(role, block, results(MATRIX[block]))
    for kind in kinds:
        record.add_seconds(Stage(blocks - 1, kind, 0 if kind is StageKind.TEACHER_UPDATE else None), 1.0)
    return record


def drawn(tested: dict[str, Results], record: StreamRecord, ks: tuple[int, ...] = (20,)) -> list[str]:
    written = io.StringIO()
    Console(file=written, width=80).print(models_table(tested, record, ks))
    return written.getvalue().splitlines()


def test_averages_join_what_is_measured_now_with_what_was_measured_then() -> None:
    found = averages_of(recorded(3), "distilled", "recall@20", MATRIX[2])
    learned, retained = mean([0.4, 0.5, 0.6]), mean(MATRIX[2])
    assert found == pytest.approx({"LA": learned, "RA": retained, "H": harmonic_mean([learned, retained])})


def test_metrics_that_the_run_did_not_measure_have_a_retained_average_alone() -> None:
    found = averages_of(recorded(3), "distilled", "recall@5", [0.1, 0.2, 0.6])
    assert found == {"LA": None, "RA": pytest.approx(0.3), "H": None}
    alone = averages_of(recorded(1), "distilled", "recall@5", [0.1])
    assert alone == pytest.approx({"LA": 0.1, "RA": 0.1, "H": 0.1})


def test_a_model_that_has_not_learned_the_last_block_has_no_averages_after_it() -> None:
    assert set(averages_of(recorded(2), "distilled", "recall@20", MATRIX[2]).values()) == {None}
    lines = drawn({"student": results(MATRIX[2])}, recorded(2, StageKind.DISTILLATION))
    assert [line.split()[1:] for line in lines if line.startswith(("LA", "RA", "H-mean"))] == [[NOTHING, NOTHING]] * 3
    assert "not measured after every block" in " ".join(" ".join(lines).split())


@pytest.mark.parametrize(
    ("kinds", "name"),
    [
        ((StageKind.STUDENT_UPDATE, StageKind.TEACHER_UPDATE, StageKind.DISTILLATION), "distilled"),
        ((StageKind.DISTILLATION, StageKind.TEACHER_UPDATE), "distilled"),
        ((StageKind.DISTILLATION, StageKind.STUDENT_UPDATE, StageKind.TEACHER_UPDATE), "student"),
        ((), "student"),
    ],
)
def test_the_student_has_the_name_of_the_role_that_it_plays(kinds: tuple[StageKind, ...], name: str) -> None:
    lines = drawn({"teacher": results([0.1]), "student": results([0.2])}, recorded(1, *kinds))
    assert next(line.split() for line in lines if "teacher " in line) == ["teacher", "teacher", name, name]
    assert next(line.split() for line in lines if "@" in line) == ["recall@20", "ndcg@20"] * 2
    values = [f"{value:.4f}" for value in (0.1, 0.05, 0.2, 0.1)]
    assert next(line.split() for line in lines if line.startswith("D0")) == ["D0", *values]


@pytest.mark.parametrize(
    ("roles", "missing"), [(["teacher"], ["student"]), ([], ["teacher", "student"]), (["teacher", "student"], [])]
)
def test_a_model_that_has_learned_nothing_is_left_out_with_a_word(roles: list[str], missing: list[str]) -> None:
    lines = drawn({role: results([0.1]) for role in roles}, recorded(1, StageKind.STUDENT_UPDATE, role="teacher"))
    assert re.findall(r"(\w+): not learned yet", " ".join(" ".join(lines).split())) == missing
    headers = [line.split() for line in lines if line.split()[:1] == ["teacher"]]
    assert headers == ([[role for role in roles for _ in range(2)]] if roles else [])


def test_without_a_cutoff_of_20_the_first_one_is_shown() -> None:
    lines = drawn({"teacher": results([0.1, 0.3], 7)}, StreamRecord(), ks=(7, 10))
    assert any(line.split() == ["recall@7", "ndcg@7"] for line in lines)
    assert max(map(len, lines)) <= 80
