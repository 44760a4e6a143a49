"""What the README shows is run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl

from ccd_lightning.data import StreamSource, build_stream
from ccd_lightning.testing import check_backbone

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def code_with(word: str) -> dict[str, Any]:
    """Names that the README's Python block with this word defines."""
    block = next(code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if word in code)
    names: dict[str, Any] = {"__name__": "readme"}
    exec(block, names)
    return names


def test_backbone_of_the_readme_keeps_the_contract() -> None:
    check_backbone(code_with("class BiasedMF")["BiasedMF"])


def test_source_of_the_readme_reads_blocks(tmp_path: Path) -> None:
    rows = {"user": ["a", "b"], "item": [1, 2], "split": ["train", "train"]}
    for block in range(11):
        pl.DataFrame({**rows, "block": [block] * 2}).write_parquet(tmp_path / f"part-{block}.parquet")
    source: StreamSource = code_with("class Nightly")["Nightly"](str(tmp_path))
    assert len(build_stream(source.table(), source.describe()).blocks) == 11


def test_files_that_the_readme_names_are_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    for name in re.findall(r"`((?:paper/)?\w+\.yaml)`", README):
        assert name == "config.yaml" or (ROOT / "configs" / name).exists(), name
