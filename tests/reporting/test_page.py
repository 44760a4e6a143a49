"""Pages of runs: of earlier releases, of the paper's streams, of runs that are under way."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from ccd_lightning.data import BlockTable
from ccd_lightning.data.blocks import build_stream
from ccd_lightning.reporting.page import report_page
from ccd_lightning.reporting.published import stream_of

from ..callbacks.conftest import Run

FIRST_OF_YELP = {"users": 11534, "items": 10782, "train": 117367, "valid": 15189, "test": 15197}


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))


@pytest.fixture
def files(reported: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """Content of ``metrics.json`` and ``stream.json``, to be changed at will."""
    summary, manifest = (json.loads((reported.folder / name).read_text()) for name in ("metrics.json", "stream.json"))
    return summary, manifest


def test_runs_of_earlier_releases_have_a_page(files: tuple[dict[str, Any], dict[str, Any]]) -> None:
    summary, manifest = files
    del summary["overlap"], manifest["events"]
    for block in manifest["blocks"]:
        for stage in block["stages"]:
            del stage["recalls"], stage["max_epochs"]
    text = text_of(report_page(summary, manifest, "recall@20"))
    assert "Pairs replayed into the student" in text and "student and teachers share" not in text
    assert "Nothing that the run has recorded" in text


def test_page_tells_who_taught_whom(files: tuple[dict[str, Any], dict[str, Any]]) -> None:
    summary, manifest = files
    text = text_of(report_page(summary, manifest, "recall@20"))
    assert "Top 20 that student and teachers share" in text
    assert f"{summary['overlap']['top@20'][-1]:.0%} of the teachers' top 20 are in the student's too" in text
    for counts in summary["replayed"].values():
        assert all(f" {count:,} " in text for count in counts.values())


def test_page_of_a_run_under_way_says_what_is_missing(files: tuple[dict[str, Any], dict[str, Any]]) -> None:
    summary, manifest = files
    manifest["blocks"][2].update(finished=False, stages=[])
    manifest["events"] = [{"what": "unreadable", "where": "<b>.ckpt"}]
    page = report_page(summary, manifest, "recall@20")
    assert "D2 is not begun." in text_of(page)
    assert "passed over for older ones: <b>.ckpt." in text_of(page) and "<b>.ckpt" not in page
    assert "Nothing that" not in page


def test_page_shows_the_papers_gains_on_its_streams_alone(files: tuple[dict[str, Any], dict[str, Any]]) -> None:
    summary, manifest = files
    assert "The paper on" not in report_page(summary, manifest, "recall@20")
    manifest["blocks"][0].update(FIRST_OF_YELP)
    text = text_of(report_page(summary, manifest, "recall@20"))
    assert "The paper on yelp" in text
    assert "student +0.010 +0.008 +0.010 +0.011 +0.010" in text


@pytest.mark.parametrize("name", ["yelp", "gowalla"])
def test_streams_of_the_paper_are_known_by_their_first_block(name: str, shared_data: Path) -> None:
    source = BlockTable(shared_data / f"{name}_blocks.parquet")
    block = build_stream(source.table(), "whatever the file is called").blocks[0]
    sizes = {part: getattr(block, part).size for part in ("train", "valid", "test")}
    assert stream_of({"blocks": [{"users": block.num_users, "items": block.num_items, **sizes}]}) == name
