"""The gain over the best baseline, drawn as the paper draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ccd_lightning.reporting.figures import FAINT, INK, ROLE_STYLE, Draw, sheet, to_png
from ccd_lightning.studies.statistics import Estimate
from ccd_lightning.studies.study import Study, model_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def gain_figure(study: Study, curves: Mapping[str, Sequence[Estimate]], baselines: Mapping[str, str | None]) -> bytes:
    """A panel a model: the gain in H-mean after D_1, D_2, ... with intervals, and the published one dashed.

    Args:
        study: what is published, and whose gain it is.
        curves: model -> gains.
        baselines: model -> what the gains are over.

    Returns:
        a PNG.
    """
    panels = [
        _panel(
            model,
            found,
            study.published_gains.get(model_of(model), []),
            f"{model}: {study.ours}\nover {baselines[model]}",
        )
        for model, found in curves.items()
        if found
    ]
    return to_png(sheet(panels, columns=len(panels), title=f"gain in H-mean of {study.metric}, test split"))


def _panel(model: str, found: Sequence[Estimate], published: Sequence[float], title: str) -> Draw:
    def draw(axes: Axes) -> None:
        blocks = range(1, len(found) + 1)
        colour = ROLE_STYLE[model]["color"]
        halves = [0.0 if np.isnan(value.half) else value.half for value in found]
        means = [value.mean for value in found]
        label = f"measured, {found[-1].seeds} seed{'s' if found[-1].seeds > 1 else ''}"
        axes.errorbar(blocks, means, yerr=halves, label=label, capsize=3, linewidth=1.8, **ROLE_STYLE[model])
        if published:
            places = range(1, len(published) + 1)
            axes.plot(
                places, published, label="published, read off", linestyle="--", linewidth=1.2, color=colour, alpha=0.6
            )
        axes.axhline(0.0, color=INK, linewidth=0.8)
        axes.set_xticks(range(1, max(len(found), len(published)) + 1))
        axes.grid(axis="y", color=FAINT, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(title, color=INK, fontsize=11, loc="left")
        axes.set_xlabel("after block", color=INK, fontsize=9)
        axes.tick_params(colors=INK, labelsize=9, length=0)
        # Below the panel, where no curve runs.
        axes.legend(frameon=False, labelcolor=INK, fontsize=9, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))

    return draw
