"""A copy of an export that a test may change, and a server of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from fastapi.testclient import TestClient

from ccd_lightning.serving import LiveModel
from ccd_lightning.serving.app import application
from tests.exports import exported


class Server(NamedTuple):
    folder: Path
    live: LiveModel
    client: TestClient


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported(), tmp_path / "export"))


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    live = LiveModel(folder)
    with TestClient(application(live, poll=0.02)) as client:
        yield Server(folder, live, client)
