"""Stacked bars: how much came from whom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ccd_lightning.reporting.figures import FAINT, ROLE_STYLE, dress, ink_on, legend_below
from ccd_lightning.reporting.units import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: Mapping[str, str] = {
    "stability": "#a05fb4",
    "plasticity": "#8a6a1c",
    "student": str(ROLE_STYLE["student"]["color"]),
}
"""Who remembers -> colour."""

_OTHERS = "#6b7785"
_LABELLED = 0.07


def draw_bars(axes: Axes, parts: Mapping[str, Sequence[float]], title: str, first: int = 0) -> None:
    """One bar a block, its parts on top of each other with their numbers inside, where they are high enough.

    Args:
        axes: where to draw.
        parts: name -> height in each block.
        title: what is counted.
        first: block of the first bar.
    """
    count = max(len(heights) for heights in parts.values())
    below = [0.0] * count
    total = max(sum(column) for column in zip(*parts.values(), strict=True)) or 1.0
    for name, heights in parts.items():
        blocks = range(first, first + count)
        colour = COLOURS.get(name, _OTHERS)
        axes.bar(blocks, heights, bottom=below, label=name, color=colour, width=0.72)
        for block, height, bottom in zip(blocks, heights, below, strict=True):
            if count <= 10 and height > _LABELLED * total:
                place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}
                axes.text(block, bottom + height / 2, compact(height), color=ink_on(colour), **place)
        below = [bottom + height for bottom, height in zip(below, heights, strict=True)]
    axes.set_xticks(range(first, first + count, math.ceil(count / 12)))
    axes.yaxis.set_major_formatter(lambda value, _: compact(value))
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    dress(axes, title, "block", "")
    axes.spines[["top", "right"]].set_visible(False)
    legend_below(axes)
