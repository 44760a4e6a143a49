"""Sentences about what went wrong, from files written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ccd_lightning.reporting.troubles import asked_users, troubles


def manifest(*blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"blocks": [{"finished": True, "users": 50, "stages": [], **block} for block in blocks], **more}


def users(*rows: list[tuple[int, int]]) -> list[list[dict[str, int]]]:
    return [[{"users": asked, "unknown_users": unknown} for asked, unknown in row] for row in rows]


def test_a_run_without_trouble_has_nothing_to_tell() -> None:
    stage = {"name": "block0-base-0", "recalls": [0.1, 0.2, 0.15]}
    assert troubles({"users": {"teacher": users([(40, 0)])}}, manifest({"stages": [stage]}, events=[])) == []


def test_files_of_earlier_releases_tell_less() -> None:
    assert troubles({}, {"blocks": [{"finished": True}, {"finished": True, "stages": [{"name": "a"}]}]}) == []
    assert asked_users({}, manifest({})) == ""


@pytest.mark.parametrize(
    ("summary", "content", "sentence"),
    [
        (
            {},
            manifest({}, {"finished": False, "stages": [{"name": "block1-student_update"}]}),
            "D1 is not finished: block1-student_update done, the rest of its stages and metrics missing.",
        ),
        ({}, manifest({}, {"finished": False}), "D1 is not begun."),
        ({}, manifest({}, {"finished": False}, {"finished": False}), "D1, D2 are not begun."),
        (
            {},
            manifest({}, events=[{"what": "resumed", "where": "a"}, {"what": "continued", "where": "b"}]),
            "Stopped and gone on with once, behind a.",
        ),
        (
            {},
            manifest({}, events=[{"what": "resumed", "where": "a"}, {"what": "resumed", "where": "b"}]),
            "Stopped and gone on with 2 times, behind a, b.",
        ),
        (
            {},
            manifest({}, events=[{"what": "unreadable", "where": "00003-a.ckpt"}]),
            "Files that could not be read and were passed over for older ones: 00003-a.ckpt.",
        ),
        (
            {},
            manifest(
                {"stages": [{"name": "worse", "recalls": [0.2, 0.1]}, {"name": "single", "recalls": [0.1]}]},
                {"stages": [{"name": "same", "recalls": [0.0, 0.0]}, {"name": "late", "recalls": [0.1, 0.0, 0.2]}]},
            ),
            "Kept the state of their first evaluation, since none after it was better, which does no harm: worse, same.",
        ),
        (
            {},
            manifest({"repeats_dropped": 2524}, {}, {"repeats_dropped": 3}),
            "Repeated (user, item) rows that were dropped: 2,524 in D0, 3 in D2.",
        ),
        (
            {
                "users": {
                    "teacher": users([(40, 0)], [(40, 0), (30, 7)]),
                    "student": users([(40, 0)], [(40, 9), (30, 0)]),
                }
            },
            manifest({}, {}),
            "Test users unknown to the teacher system when their block ended, each counted as 0: 7 in D1.",
        ),
    ],
)
def test_each_trouble_is_one_sentence(summary: dict[str, Any], content: dict[str, Any], sentence: str) -> None:
    assert troubles(summary, content) == [sentence]


def test_metrics_say_of_how_many_users_they_speak() -> None:
    found = asked_users({"users": {"teacher": users([(40, 0)], [(40, 0), (1300, 7)])}}, manifest({}, {"users": 2000}))
    assert found.endswith("have a test item in it: 40 of 50 in D0, 1,300 of 2,000 in D1.")
