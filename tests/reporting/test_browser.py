"""Pages as a browser shows them: whole on a phone and on a screen, by day and by night, without a word of complaint."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ccd_lightning.cli import main

from ..browser import Browser
from ..callbacks.conftest import Run

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def pages(reported: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report, and a comparison of two runs whose names leave little room."""
    folder = tmp_path_factory.mktemp("pages")
    runs = [folder / f"a_run_with_a_name_that_is_long_{number}" for number in range(2)]
    for run in runs:
        shutil.copytree(reported.folder, run, ignore=shutil.ignore_patterns("checkpoints"))
        (run / "config.yaml").write_text(f"trainer:\n  default_root_dir: x\nsetting: {run.name}\n")
    main(["compare", *map(str, runs), "--baseline", str(runs[1]), "--output", str(folder / "comparison.html")])
    return {"report": reported.folder / "report.html", "comparison": folder / "comparison.html"}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["report", "comparison"])
def test_page_fits_its_window_and_asks_for_nothing(
    browser: Browser, pages: dict[str, Path], name: str, width: int, dark: bool
) -> None:
    shown = browser.show(pages[name], width, OVERFLOW, dark=dark)
    assert shown.complaints == []
    assert shown.requests == [pages[name].resolve().as_uri()]
    assert shown.value == 0
    assert int.from_bytes(shown.picture[16:20], "big") == width


SMALLEST = """Math.min(...[...document.querySelectorAll("svg text")].filter(text => text.textContent.trim())
    .map(text => parseFloat(getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b)))"""
FAINTEST = """(() => {
    const light = colour => { const part = colour.match(/[0-9.]+/g).slice(0, 3).map(value => value / 255)
        .map(value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2] };
    const ground = light(getComputedStyle(document.body).backgroundColor);
    return Math.min(...[...document.querySelectorAll("h1, h2, p, td, th, dd, li, summary")]
        .map(element => light(getComputedStyle(element).color))
        .map(ink => (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05))) })()"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read_on_a_phone(browser: Browser, pages: dict[str, Path], dark: bool) -> None:
    page = pages["report"]
    assert browser.show(page, 390, SMALLEST, dark=dark).value >= 9
    # The contrast that WCAG 2.1 asks of text (level AA).
    assert browser.show(page, 390, FAINTEST, dark=dark).value >= 4.5


def test_complaints_and_requests_of_a_bad_page_are_noticed(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<body style='width:2000px'><img src='absent.png'><script>console.error('oh'); nowhere()</script></body>"
    )
    shown = browser.show(page, 390, OVERFLOW)
    assert shown.value > 0
    assert len(shown.requests) == 2
    text = " ".join(shown.complaints)
    assert "oh" in text and "nowhere is not defined" in text and "ERR_FILE_NOT_FOUND" in text
