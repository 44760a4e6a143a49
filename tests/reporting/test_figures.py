"""Figures show the numbers they are given."""

from __future__ import annotations

import math
import re
import sys
from subprocess import run
from typing import Any
from xml.etree import ElementTree

import pytest

from ccd_lightning.reporting.bars import draw_bars
from ccd_lightning.reporting.figures import ANNOTATED_BLOCKS, draw_curves, draw_matrix, draw_shares, panel, to_svg

MATRIX = [[0.1], [0.2, 0.3]]


def texts(svg: str) -> list[str]:
    return [str(node.text).strip() for node in ElementTree.fromstring(svg.replace("xlink:href", "href")).iter("text")]


def test_matrix_figure_annotates_every_entry() -> None:
    svg = to_svg(panel(lambda axes: draw_matrix(axes, MATRIX, "Teacher", (0.1, 0.3))), "matrix")
    assert {"Teacher", "0.1000", "0.2000", "0.3000", "D0", "D1"} <= set(texts(svg))


def test_matrix_figure_of_many_blocks_leaves_the_numbers_to_the_tables() -> None:
    rows = [[0.123] * (k + 1) for k in range(ANNOTATED_BLOCKS + 1)]
    svg = to_svg(panel(lambda axes: draw_matrix(axes, rows, "Teacher", (0.0, 1.0))), "matrix")
    assert not any("0.123" in text for text in texts(svg))


def test_curves_figure_draws_every_role_at_its_values() -> None:
    drawn = {}

    def draw(axes: object) -> None:
        draw_curves(axes, {"teacher": [0.1, 0.4], "student": [0.3, 0.2]}, "H", first=1)  # type: ignore[arg-type]
        drawn.update({line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()})  # type: ignore[attr-defined]

    svg = to_svg(panel(draw), "curves")
    assert drawn == {"teacher": [[1, 0.1], [2, 0.4]], "student": [[1, 0.3], [2, 0.2]]}
    assert {"teacher", "student", "H"} <= set(texts(svg))


def test_bars_stand_on_each_other_and_carry_their_numbers() -> None:
    drawn: dict[str, list[tuple[float, float]]] = {}

    def draw(axes: Any) -> None:
        draw_bars(axes, {"stability": [3000.0, 0.0], "plasticity": [1000.0, 2000.0]}, "Pairs", first=1)
        for bars in axes.containers:
            drawn[bars.get_label()] = [(bar.get_y(), bar.get_height()) for bar in bars]

    svg = to_svg(panel(draw), "bars")
    assert drawn == {"stability": [(0, 3000), (0, 0)], "plasticity": [(3000, 1000), (0, 2000)]}
    assert {"stability", "plasticity", "3k", "1k", "2k"} <= set(texts(svg))


def test_shares_are_drawn_on_the_whole_scale() -> None:
    limits = []

    def draw(axes: Any) -> None:
        draw_shares(axes, {"distilled": [math.nan, 0.5, 0.51]}, "Shared")
        limits.append(axes.get_ylim())

    assert {"0%", "100%"} <= set(texts(to_svg(panel(draw), "shares")))
    assert limits == [(0.0, 1.0)]


def test_svg_takes_the_colours_of_its_page_and_reaches_for_nothing() -> None:
    svg = to_svg(panel(lambda axes: draw_matrix(axes, MATRIX, "Teacher", (0.1, 0.3))), "matrix")
    assert "currentColor" in svg
    assert "http" not in svg
    assert not re.search(r"<svg[^>]*\swidth=", svg)


def test_figures_of_one_page_have_no_name_in_common() -> None:
    def names(label: str) -> set[str]:
        svg = to_svg(panel(lambda axes: draw_curves(axes, {"teacher": [0.1, 0.2]}, label)), label)
        return {name for name in re.findall(r'id="([^"]+)"', svg) if f"#{name}" in svg}

    assert names("LA").isdisjoint(names("RA"))


@pytest.mark.slow
@pytest.mark.parametrize("module", ["ccd_lightning.reporting.figures", "pyarrow.parquet"])
def test_callbacks_import_without_what_draws_and_writes(module: str) -> None:
    code = f"import sys, ccd_lightning.callbacks; sys.exit({module!r} in sys.modules)"
    assert run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0
