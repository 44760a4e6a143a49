"""Where the tests find golden vectors, real streams and a browser, all optional."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.browser import NAMES, Browser, find_browser

SHARED = Path(__file__).resolve().parents[2] / "shared"
MARKER_OF_FIXTURE = {"golden": "golden", "shared_data": "real_data", "browser": "browser"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture, marker in MARKER_OF_FIXTURE.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print every compared case with its largest difference, also where the tests ran in several processes."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    lines = [
        str(value)
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == "compared"
    ]
    if lines:
        terminalreporter.section("compared with golden vectors and independent formulas")
        terminalreporter.write_line("\n".join(sorted(lines)))


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Tensor]]:
    """Loads the golden vectors of one case by its name, as tensors by key."""
    folder = _folder("CCD_GOLDEN", "golden")

    def load(name: str) -> dict[str, Tensor]:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
            return {key: torch.from_numpy(np.array(arrays[key])) for key in arrays}

    return load


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real streams."""
    return _folder("CCD_DATA", "data")


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Operations on two threads, whatever the machine and the tests beside would have."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    program = find_browser()
    if program is None:
        pytest.skip(f"no browser is installed: looked for {', '.join(NAMES)}")
    with Browser(program) as found:
        yield found


def _folder(variable: str, name: str) -> Path:
    folder = Path(os.environ.get(variable, SHARED / name))
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist; name the folder in {variable}")
    return folder
