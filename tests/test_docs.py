"""The documentation builds as a site that needs no network, and leads nowhere that is not there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.browser import Browser

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


class Page(HTMLParser):
    """What a page loads, where it leads, and where others can lead into it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") in ("stylesheet", "icon", "preconnect"):
            self.loads.append(values["href"])
        elif "src" in values:
            self.loads.append(values["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """The pages of the site, built from a copy."""
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")
    work = tmp_path_factory.mktemp("docs")
    for name in ("docs", "examples"):
        shutil.copytree(ROOT / name, work / name)
    shutil.copy(ROOT / "mkdocs.yml", work)
    package = work / "build" / "package" / "ccd_lightning"
    shutil.copytree(ROOT / "ccd_lightning", package)
    shutil.copytree(ROOT / "callbacks", package / "callbacks")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build"], cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {path: Page(path.read_text()) for path in (work / "build" / "site").rglob("*.html")}


@pytest.mark.slow
def test_the_tutorial_shows_the_examples_themselves(site: dict[Path, Page]) -> None:
    text = "".join(path.read_text() for path in site if "bring-your-own" in str(path))
    for example in ("neural_cf", "alignment", "sqlite_log"):
        names = re.findall(r"^class (\w+)", (ROOT / "examples" / f"{example}.py").read_text(), re.MULTILINE)
        assert names
        # In what is highlighted as code, every name stands in an element of its own.
        assert all(f">{name}</span>" in text for name in names), example


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site: dict[Path, Page]) -> None:
    assert len(site) > 8
    for path, page in site.items():
        assert page.loads
        for target in page.loads:
            assert not urlsplit(target).netloc, f"{path.name} loads {target}"


@pytest.mark.slow
def test_links_lead_somewhere(site: dict[Path, Page]) -> None:
    followed = 0
    for path, page in site.items():
        if path.name == "404.html":
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{path.name} leads to {link}"
            if parts.fragment and target in site:
                assert unquote(parts.fragment) in site[target].anchors, f"{path.name} leads to {link}"
            followed += 1
    assert followed > 100


SEARCH = """new Promise(done => {
    const field = document.querySelector("[data-md-component=search-query]");
    field.focus();
    field.value = "proxy";
    field.dispatchEvent(new Event("keyup"));
    let looks = 200;
    const look = () => {
        const found = [...document.querySelectorAll(".md-search-result__link")].map(link => link.href);
        found.length || !looks-- ? done(found) : setTimeout(look, 50);
    };
    look() })"""
"""Searches for a word, and promises the addresses that the site finds within ten seconds."""


@pytest.mark.slow
def test_search_works_in_a_site_that_is_opened_from_a_disk(site: dict[Path, Page], browser: Browser) -> None:
    (page,) = [path for path in site if path.name == "quickstart.html"]
    shown = browser.show(page, 1280, SEARCH)
    assert (page.parent / "concepts.html").resolve().as_uri() in shown.value
    assert shown.complaints == []
    assert all(urlsplit(address).scheme == "file" for address in shown.requests)
    for address in shown.value:
        found = (page.parent / Path(urlsplit(address).path).name).read_text().lower()
        assert "prox" in found, address


@pytest.mark.slow
def test_reference_shows_every_argument_of_a_class(site: dict[Path, Page]) -> None:
    path = next(path for path in site if path.name == "configuration.html")
    text = re.sub(r"<[^>]+>", " ", path.read_text())
    for word in ("stability_momentum", "teacher_every", "every_seconds", "base_fraction", "new_rows_topk"):
        assert word in text


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("nav:")[2]
    for path in DOCS.glob("*.md"):
        assert f" {path.name}" in navigation, path.name


def test_files_that_the_guides_name_are_there() -> None:
    for path in DOCS.glob("*.md"):
        for name in re.findall(r"(?:configs|examples|tests|benchmarks)/[\w/]+\.\w+", path.read_text()):
            assert (ROOT / name).exists(), f"{path.name} names {name}"
