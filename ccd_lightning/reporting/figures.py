"""Figures of a run, drawn with Matplotlib's objects alone: no pyplot, no state outside a figure."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1b2733"
FAINT = "#c3ccd5"
ROLE_STYLE: Mapping[str, Mapping[str, Any]] = {
    "teacher": {"color": "#3d7fb8", "marker": "o"},
    "student": {"color": "#d9663b", "marker": "s"},
    "distilled": {"color": "#2f9271", "marker": "^"},
}
"""Colours that are told apart on light and on dark ground, and by people who see red and green alike."""

MARKERS = "os^Dv*PX"
"""Shapes of points, in Matplotlib's letters."""

ANNOTATED_BLOCKS = 10
"""Up to this many blocks the cells of a heat map carry their values."""

PANEL = (4.0, 3.3)
"""Inches of one panel."""

Draw = Callable[["Axes"], None]


def draw_matrix(axes: Axes, rows: Sequence[Sequence[float]], title: str, limits: tuple[float, float]) -> None:
    """A performance matrix as a heat map: row k is the state after block k, column j the block that is asked.

    Where a block asks nobody (NaN), a cell stays empty.

    Args:
        axes: where to draw.
        rows: A, row k with k + 1 entries.
        title: whose it is.
        limits: least and largest value of the colours.
    """
    from matplotlib.colors import Normalize

    size = len(rows)
    cells = [list(row) + [math.nan] * (size - len(row)) for row in rows]
    colour = Normalize(*limits)
    mesh = axes.pcolormesh(cells, cmap="viridis", norm=colour, edgecolors="none")
    if size <= ANNOTATED_BLOCKS:
        for after, row in enumerate(rows):
            for block, value in enumerate(row):
                if math.isnan(value):
                    continue
                # On a phone smaller letters could not be read.
                text = f"{value:.3f}".lstrip("0") if size > 7 else f"{value:.4f}"
                place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9}
                axes.text(block + 0.5, after + 0.5, text, color=ink_on(mesh.cmap(float(colour(value)))[:3]), **place)
    step = math.ceil(size / 12)
    places = range(0, size, step)
    axes.set_xticks([place + 0.5 for place in places], [f"D{place}" for place in places])
    axes.set_yticks([place + 0.5 for place in places], [str(place) for place in places])
    axes.invert_yaxis()
    dress(axes, title, "asked on", "after block")
    axes.spines[:].set_visible(False)


def ink_on(ground: str | tuple[float, float, float]) -> str:
    """Black or white, whichever is read better on a colour.

    >>> ink_on("#ffffff"), ink_on((0.1, 0.1, 0.3))
    ('#000000', '#ffffff')
    """
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(ground)
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.42 else "#ffffff"


def styles_of(names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Colours and markers that tell any number of lines apart: the colours come again with other markers."""
    colours = [*(style["color"] for style in ROLE_STYLE.values()), "#a05fb4", "#b8862b", "#6b7785"]
    pairs = zip(itertools.cycle(colours), (marker for marker in MARKERS for _ in colours), strict=False)
    return {name: {"color": colour, "marker": marker} for name, (colour, marker) in zip(names, pairs, strict=False)}


def draw_curves(
    axes: Axes,
    curves: Mapping[str, Sequence[float]],
    title: str,
    first: int = 0,
    styles: Mapping[str, Mapping[str, Any]] = ROLE_STYLE,
    legend: bool = True,
) -> None:
    """One line a role, or a run, over the blocks.

    Args:
        axes: where to draw.
        curves: name -> value after each block.
        title: which quantity.
        first: block of the first value.
        styles: name -> how its line looks.
        legend: whether to name the lines below; many or long names would leave no room for the lines.
    """
    for name, values in curves.items():
        blocks = range(first, first + len(values))
        axes.plot(blocks, values, label=name, linewidth=1.8, markersize=5, clip_on=False, **styles[name])
    last = first + max(len(values) for values in curves.values()) - 1
    axes.set_xticks(range(first, last + 1, math.ceil((last - first + 1) / 12)))
    axes.set_xlim(first - 0.15, last + 0.15)
    axes.margins(y=0.12)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    dress(axes, title, "after block", "")
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        legend_below(axes)


def draw_shares(axes: Axes, curves: Mapping[str, Sequence[float]], title: str, **options: Any) -> None:
    """Curves of shares, on the whole scale from nothing to all.

    Args:
        axes: where to draw.
        curves: name -> share after each block, from 0 to 1.
        title: of what.
        options: as for :func:`draw_curves`.
    """
    draw_curves(axes, curves, title, **options)
    axes.set_ylim(0.0, 1.0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def legend_below(axes: Axes) -> None:
    """Names under the panel, where they cover nothing."""
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.17),
        ncols=3,
        frameon=False,
        labelcolor=INK,
        fontsize=9,
        handlelength=1.6,
    )


def dress(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Title, labels and colours that all the panels share.

    Args:
        axes: what is drawn.
        title: what it shows.
        x_label: below.
        y_label: beside.
    """
    axes.set_title(title, color=INK, fontsize=11, loc="left")
    axes.set_xlabel(x_label, color=INK, fontsize=9)
    axes.set_ylabel(y_label, color=INK, fontsize=9)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.patch.set_alpha(0.0)
    for spine in axes.spines.values():
        spine.set_color(FAINT)


def panel(draw: Draw) -> Figure:
    """One panel as a figure of its own."""
    return sheet([draw], columns=1)


def sheet(draws: Sequence[Draw], columns: int = 3, title: str = "") -> Figure:
    """Several panels on one sheet."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = max(1, math.ceil(len(draws) / columns))
    gap = 0.04 if columns == 1 else 0.12
    layout = ConstrainedLayoutEngine(w_pad=gap, h_pad=gap)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout=layout, facecolor="none")
    if title:
        figure.suptitle(title, color=INK, fontsize=13)
    for index, draw in enumerate(draws):
        draw(figure.add_subplot(rows, columns, index + 1))
    return figure


def to_png(figure: Figure, dots_per_inch: int = 130) -> bytes:
    """A PNG on white ground."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    image = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(image, format="png", dpi=dots_per_inch, facecolor="white")
    return image.getvalue()


def to_svg(figure: Figure, label: str) -> str:
    """An SVG element to stand inside a page: text stays text, and ink takes the page's colours.

    Args:
        figure: what to render.
        label: what a screen reader says; it also keeps the element's inner names apart from those of others.
    """
    import matplotlib as mpl

    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(text, format="svg", metadata=nothing, transparent=True)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = (
        re.sub(r'\s(?:xmlns(?::xlink)?|version|width|height)="[^"]*"', "", svg[: svg.index(">")])
        + svg[svg.index(">") :]
    )
    svg = svg.replace(INK, "currentColor").replace(FAINT, "var(--line)")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()
