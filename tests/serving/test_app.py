"""Answers over HTTP against a ranking by a sort in numpy, and against the data itself."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from ccd_lightning.export import replace_folder
from ccd_lightning.serving import LiveModel
from ccd_lightning.serving.app import application
from tests.exports import sign, stream, student
from tests.serving.conftest import Server

USERS, ITEMS = stream().stream.users.raw.to_list(), stream().stream.items.raw.to_list()


def by_hand(user: int, k: int, seen: bool) -> list[int]:
    with torch.no_grad():
        scores = student().scores(torch.tensor([user]))[0].numpy()
    if not seen:
        for block in stream().blocks:
            scores[block.train.items[block.train.users == user]] = -np.inf
    return [ITEMS[item] for item in np.argsort(-scores)[:k] if scores[item] > -np.inf]


def items_of(answer: Any) -> list[Any]:
    return [entry["item"] for entry in answer.json()["items"]]


@pytest.mark.parametrize("seen", [None, False, True])
def test_known_users_get_the_models_best_items(server: Server, seen: bool | None) -> None:
    for row, user in enumerate(USERS):
        options = {"k": 7} if seen is None else {"k": 7, "seen": seen}
        answer = server.client.get(f"/recommend/{user}", params=options)
        assert items_of(answer) == by_hand(row, 7, bool(seen))
        assert answer.json()["known"] and answer.json()["user"] == user
        scores = [entry["score"] for entry in answer.json()["items"]]
        assert scores == sorted(scores, reverse=True)


def test_users_who_have_seen_much_get_what_is_left(server: Server) -> None:
    answer = server.client.get(f"/recommend/{USERS[0]}", params={"k": len(ITEMS)})
    assert items_of(answer) == by_hand(0, len(ITEMS), seen=False)
    assert len(items_of(answer)) < len(ITEMS)


def test_unknown_users_get_the_popular_items_of_the_last_block_and_are_told(server: Server) -> None:
    answer = server.client.get("/recommend/nobody/at all?k=5")
    rows = (
        stream().source.table().filter((pl.col("block") == 2) & (pl.col("split") == "train")).unique(["user", "item"])
    )
    most = Counter(rows["item"].to_list()).most_common(5)
    assert [entry["score"] for entry in answer.json()["items"]] == [count for _, count in most]
    counts = dict(rows["item"].value_counts().iter_rows())
    assert [counts[item] for item in items_of(answer)] == [count for _, count in most]
    assert not answer.json()["known"]
    assert "most popular items of block 2" in answer.json()["note"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("someone?k=0", "`k` is '0': Input should be greater than or equal to 1"),
        ("someone?k=-3", "`k` is '-3'"),
        ("someone?k=999", rf"`k` is 999, but the catalogue has {len(ITEMS)} items: ask for 1 to {len(ITEMS)}"),
        ("someone?k=many", "`k` is 'many': Input should be a valid integer"),
        ("someone?seen=maybe", "`seen` is 'maybe': Input should be a valid boolean"),
        ("?k=3", "`user` is ''"),
    ],
)
def test_bad_requests_are_told_what_is_wrong(server: Server, query: str, message: str) -> None:
    answer = server.client.get(f"/recommend/{query}")
    assert answer.status_code == 422
    assert message in answer.json()["detail"]


def test_integer_ids_are_asked_for_as_integers(folder: Path) -> None:
    path = folder / "users.parquet"
    pl.read_parquet(path).with_columns(raw=pl.col("id") + 1000).write_parquet(path)
    sign(folder)
    client = TestClient(application(LiveModel(folder)))
    answer = client.get("/recommend/1003?k=5").json()
    assert answer["user"] == 1003
    assert [entry["item"] for entry in answer["items"]] == by_hand(3, 5, seen=False)
    assert client.get("/recommend/-7").json()["known"] is False
    for user in ("eve", "1_003", "1003.0", "01003", "-0", "9" * 5000):
        refused = client.get(f"/recommend/{user}")
        assert refused.status_code == 422
        assert "is no integer id, but this model's users are: ask with one such as 1000" in refused.json()["detail"]


def test_exports_without_seen_items_say_so(folder: Path) -> None:
    (folder / "seen.parquet").unlink()
    sign(folder)
    client = TestClient(application(LiveModel(folder)))
    assert items_of(client.get(f"/recommend/{USERS[0]}?k=9")) == by_hand(0, 9, seen=True)
    refused = client.get(f"/recommend/{USERS[0]}?seen=false")
    assert refused.status_code == 422
    assert "carries no seen items: leave `seen` out, or export with `--seen true`" in refused.json()["detail"]


def wait_for(server: Server, **expected: Any) -> dict[str, Any]:
    """The health, as soon as it says what is expected."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        health: dict[str, Any] = server.client.get("/health").json()
        if all(health[name] == value for name, value in expected.items()):
            return health
        time.sleep(0.02)
    raise AssertionError(f"{health} never became {expected}")


def test_a_new_export_is_served_without_a_restart(server: Server, tmp_path: Path) -> None:
    before = server.client.get("/health").json()
    assert (before["status"], before["block"], before["refused"]) == ("ok", 2, None)
    draft = Path(shutil.copytree(server.folder, tmp_path / "draft"))
    sign(draft, block=3)
    replace_folder(draft, server.folder)
    after = wait_for(server, block=3)
    answer = server.client.get(f"/recommend/{USERS[0]}").json()
    assert answer["version"] == after["version"] != before["version"]


def test_a_broken_export_is_refused_and_the_old_one_goes_on(server: Server) -> None:
    expected = items_of(server.client.get(f"/recommend/{USERS[0]}"))
    content = (server.folder / "student.onnx").read_bytes()
    (server.folder / "student.onnx").write_bytes(content[:-9])
    health = wait_for(server, status="degraded")
    assert "student.onnx has the SHA-256" in health["refused"]
    assert items_of(server.client.get(f"/recommend/{USERS[0]}")) == expected
    assert "ccd_export_refused 1.0" in server.client.get("/metrics").text
    (server.folder / "student.onnx").write_bytes(content)
    assert wait_for(server, status="ok")["refused"] is None


def test_a_refused_export_leaves_one_line_in_the_log(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (server.folder / "users.parquet").read_bytes()
    for size in (9, 99):
        (server.folder / "users.parquet").write_bytes(whole[:size])
        told = ""
        deadline = time.monotonic() + 20
        while "\n" not in told and time.monotonic() < deadline:
            time.sleep(0.05)
            told += capsys.readouterr().err
        # Some ten looks more.
        time.sleep(0.2)
        told += capsys.readouterr().err
        version = server.client.get("/health").json()["version"]
        assert told.startswith(f"warning: the new export is refused, and version {version} stays in service: ")
        assert f"{server.folder / 'users.parquet'} has the SHA-256" in told
        assert told.count("\n") == 1
    (server.folder / "users.parquet").write_bytes(whole)
    wait_for(server, status="ok")
    assert capsys.readouterr().err == ""


def test_metrics_count_requests_latencies_and_unknown_users(server: Server) -> None:
    for query in (USERS[0], USERS[1], "nobody", f"{USERS[0]}?k=0"):
        server.client.get(f"/recommend/{query}")
    text = server.client.get("/metrics").text
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["ccd_requests_total", "200"] == 3
    assert found["ccd_requests_total", "422"] == 1
    assert found["ccd_unknown_users_total",] == 1
    assert found["ccd_latency_seconds_count",] == 4
    assert found["ccd_latency_seconds_sum",] > 0
    assert found[("ccd_model_info", *sorted([server.live.model.version, "student", "2"]))] == 1
    assert found["ccd_export_refused",] == 0
