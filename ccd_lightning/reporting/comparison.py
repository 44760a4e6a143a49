"""Several runs side by side, as one page that needs nothing but a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ccd_lightning.record import ROLES
from ccd_lightning.reporting import markup
from ccd_lightning.reporting.figures import MARKERS, Draw, draw_curves, panel, styles_of, to_svg
from ccd_lightning.reporting.style import STYLE
from ccd_lightning.reporting.tables import METRIC, Summary, pick_metric
from ccd_lightning.reporting.units import NOTHING, duration, score, size

PUBLISHED: Mapping[str, Mapping[str, Sequence[float]]] = {
    "yelp": {"teacher": (0.004, 0.024, 0.034, 0.039, 0.036), "student": (0.010, 0.008, 0.010, 0.011, 0.010)},
    "gowalla": {"teacher": (0.007, 0.024, 0.027, 0.032, 0.034), "student": (0.003, 0.011, 0.024, 0.027, 0.026)},
}
"""Gains in H-mean of Recall@20 over the best continual baseline after D_1, ..., D_5, read off the paper's figures."""

_SHAPES = dict(zip(MARKERS, "●■▲◆▼★✚✖", strict=True))

QUANTITIES = ("LA", "RA", "H", "forgetting")


@dataclass(frozen=True)
class FinishedRun:
    """What a run's folder tells.

    Attributes:
        name: of the folder.
        summary: content of ``metrics.json``.
        manifest: content of ``stream.json``.
        settings: dotted key -> value of ``config.yaml``.
    """

    name: str
    summary: Summary
    manifest: Mapping[str, Any]
    settings: Mapping[str, Any]


def read_run(folder: Path) -> FinishedRun:
    """Read the folder of a run.

    Args:
        folder: where the run has written.

    Raises:
        ValueError: if it is none, or nothing is measured yet.
    """
    try:
        summary, manifest = (json.loads((folder / name).read_text()) for name in ("metrics.json", "stream.json"))
        measured = any(summary[role] for role in ROLES)
        blocks = len(manifest["blocks"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} is no run's folder: expected `metrics.json` and `stream.json` as `fit` writes them ({error}). Name"
            " folders such as runs/ccd."
        ) from error
    if not measured or not blocks:
        raise ValueError(f"{folder} has measured nothing yet: wait until its first stage is done, or leave it out.")
    config = folder / "config.yaml"
    settings = dict(_flat(OmegaConf.to_container(OmegaConf.load(config)))) if config.is_file() else {}
    return FinishedRun(folder.resolve().name, summary, manifest, settings)


def comparison_page(
    runs: Sequence[FinishedRun], baseline: FinishedRun | None = None, published: str | None = None
) -> str:
    """One self-contained HTML page.

    Args:
        runs: at least one, of different names.
        baseline: the run among them over which gains are taken.
        published: the paper's stream whose gains are drawn beside, a key of :data:`PUBLISHED`.
    """
    metric = pick_metric(runs[0].summary, METRIC)
    parts = [
        f'<header><h1>Runs side by side</h1><p class="soft">{escape(", ".join(run.name for run in runs))}</p></header>',
        _h_mean_section(runs, metric),
        *(_averages(runs, role, metric) for role in ROLES),
        _gains(runs, baseline, metric, published),
        markup.section("Cost", "Training, and what the models of the last block weigh.", _costs(runs)),
        markup.section("Settings that differ", "From the runs' `config.yaml`.", _differences(runs)),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Runs side by side</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _h_means(run: FinishedRun, role: str, metric: str) -> list[float]:
    return list(run.summary[role].get(metric, {}).get("H", []))


def _h_mean_section(runs: Sequence[FinishedRun], metric: str) -> str:
    styles = styles_of([run.name for run in runs])
    figures = []
    for role in ROLES:
        curves = {run.name: _h_means(run, role, metric) for run in runs}
        figures.append((role, _lines(curves, role, styles)))
    return markup.section("H-mean over the blocks", f"{metric} on the test split.", _key(styles), _figures(figures))


def _lines(
    curves: Mapping[str, Sequence[float]], role: str, styles: Mapping[str, Mapping[str, Any]], first: int = 0
) -> Draw | None:
    """What draws a role's curves; ``None`` if there is none."""
    found = {name: values for name, values in curves.items() if values}
    title = role.capitalize()
    draw = partial(draw_curves, curves=found, title=title, first=first, styles=styles, legend=False)
    return draw if found else None


def _averages(runs: Sequence[FinishedRun], role: str, metric: str) -> str:
    """After the last block that all the runs have measured, so that equal things are compared."""
    found = {run.name: run.summary[role][metric] for run in runs if metric in run.summary[role]}
    if not found:
        return ""
    last = min(len(of["H"]) for of in found.values()) - 1
    rows = [[name, *(score(of[quantity][last]) for quantity in QUANTITIES)] for name, of in found.items()]
    title = f"{role.capitalize()} after D{last}"
    return markup.section(title, "The last block that all of them have.", markup.table(["run", *QUANTITIES], rows))


def _gains(runs: Sequence[FinishedRun], baseline: FinishedRun | None, metric: str, published: str | None) -> str:
    if baseline is None:
        return ""
    context = "the paper, read off"
    others = [run for run in runs if run is not baseline]
    # A run looks as it does above.
    styles = styles_of([*(run.name for run in runs), *([context] if published else [])])
    figures = []
    for role in ROLES[:2]:
        base = _h_means(baseline, role, metric)
        curves = {run.name: _gain(_h_means(run, role, metric), base) for run in others}
        if published:
            curves[context] = list(PUBLISHED[published][role])
        figures.append((role, _lines(curves, role, styles, first=1)))
    text = f"H-mean of {metric} minus that of {baseline.name}, after each block from D1 on."
    if published:
        text += f" The paper's gains on {published} are over the best of its own baselines."
    return markup.section(
        f"Gain over {baseline.name}",
        text,
        _key({name: style for name, style in styles.items() if name != baseline.name}),
        _figures(figures),
    )


def _gain(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Differences after D_1, D_2, ... as far as both go.

    >>> _gain([0.5, 0.4, 0.25], [0.5, 0.15])
    [0.25]
    """
    return [value - other for value, other in zip(values[1:], base[1:], strict=False)]


def _costs(runs: Sequence[FinishedRun]) -> str:
    rows = []
    for run in runs:
        models = [block["models"] for block in run.manifest["blocks"] if block["models"]]
        weights = [size(models[-1][role]["bytes"]) if models else NOTHING for role in ("teacher", "student")]
        seconds = sum(map(sum, run.summary["seconds"].values()))
        done = sum(block["finished"] for block in run.manifest["blocks"])
        blocks = f"{done} of {len(run.manifest['blocks'])}"
        rows.append([run.name, blocks, duration(seconds), *weights, size(run.summary["peak_bytes"])])
    return markup.table(["run", "blocks", "training", "teacher system", "student", "peak memory"], rows)


def _differences(runs: Sequence[FinishedRun]) -> str:
    keys = sorted({key for run in runs for key in run.settings} - {"trainer.default_root_dir", "ckpt_path"})
    rows = []
    for key in keys:
        values = [str(run.settings.get(key, NOTHING)) for run in runs]
        if len(set(values)) > 1:
            rows.append([key, *values])
    return markup.table(["setting", *(run.name for run in runs)], rows) if rows else ""


def _figures(figures: Sequence[tuple[str, Draw | None]]) -> str:
    drawn = "".join(f"<figure>{to_svg(panel(draw), escape(label))}</figure>" for label, draw in figures if draw)
    return f'<div class="figures">{drawn}</div>' if drawn else ""


def _key(styles: Mapping[str, Mapping[str, Any]]) -> str:
    """The lines' names beside their colours and markers, once for several figures."""
    entries = (
        f'<span style="white-space:nowrap"><b style="color:{style["color"]}">{_SHAPES[style["marker"]]}</b>'
        f" {escape(name)}</span>"
        for name, style in styles.items()
    )
    return f"<p>{' &ensp; '.join(entries)}</p>"


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of nested mappings and lists.

    >>> dict(_flat({"a": {"b": 1}, "c": [2, {"d": 3}]}))
    {'a.b': 1, 'c.0': 2, 'c.1.d': 3}
    """
    if isinstance(value, dict | list) and value:
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in entries:
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value
