"""Several runs side by side, as one page that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from typing import Any

from ccd_lightning.record import ROLES
from ccd_lightning.reporting import markup
from ccd_lightning.reporting.figures import MARKERS, Draw, draw_curves, draw_shares, panel, styles_of, to_svg
from ccd_lightning.reporting.finished import FinishedRun
from ccd_lightning.reporting.panels import SHARED, overlap_of
from ccd_lightning.reporting.published import PUBLISHED, stream_of
from ccd_lightning.reporting.tables import METRIC, pick_metric
from ccd_lightning.reporting.troubles import NONE, troubles
from ccd_lightning.reporting.units import NOTHING, duration, score, size

_SHAPES = {**dict(zip(MARKERS, "●■▲◆▼★✚✖", strict=True)), "": "- -"}

_DIFFERENT = (
    "These runs do not begin with the same D_0: their numbers answer different questions, and no gains are taken."
)

CONTEXT = "the paper, read off"

QUANTITIES = ("LA", "RA", "H", "forgetting")


def comparison_page(
    runs: Sequence[FinishedRun], baseline: FinishedRun | None = None, published: str | None = None
) -> str:
    """One self-contained HTML page.

    Args:
        runs: at least one, of different names.
        baseline: the run among them over which gains are taken.
        published: the paper's stream whose gains are drawn beside, a key of :data:`PUBLISHED`; by default the one that all
            the runs learn, if it is one.
    """
    streams = {stream_of(run.manifest) for run in runs}
    if published is None and len(streams) == 1:
        published = streams.pop()
    metric = pick_metric(runs[0].summary, METRIC)
    parts = [
        f'<header><h1>Runs side by side</h1><p class="soft">{escape(", ".join(run.name for run in runs))}</p></header>',
        f'<p role="alert"><b>{_DIFFERENT}</b></p>' if _streams_differ(runs) else "",
        _h_mean_section(runs, metric),
        *(_averages(runs, role, metric) for role in ROLES),
        "" if _streams_differ(runs) else _gains(runs, baseline, metric, published),
        _overlaps(runs),
        markup.section("What went wrong", "Run by run.", _troubles(runs)),
        markup.section("Cost", "Training, and what the models of the last block weigh.", _costs(runs)),
        markup.section("Settings that differ", "From the configuration that each run keeps.", _differences(runs)),
    ]
    return markup.document("Runs side by side", parts)


def _streams_differ(runs: Sequence[FinishedRun]) -> bool:
    first_blocks = (run.manifest.get("blocks", [])[:1] for run in runs)
    return len({block.get("fingerprint") for blocks in first_blocks for block in blocks}) > 1


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
    draw = partial(draw_curves, curves=found, title=role.capitalize(), first=first, styles=styles, legend=False)
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
    others = [run for run in runs if run is not baseline]
    # A run looks as it does above.
    styles = styles_of([run.name for run in runs])
    if published:
        styles[CONTEXT] = {"color": "#6b7785", "marker": "", "linestyle": "--"}
    figures = []
    for role in ROLES:
        base = _h_means(baseline, role, metric)
        curves = {run.name: _gain(_h_means(run, role, metric), base) for run in others}
        if published and role in PUBLISHED[published]:
            curves[CONTEXT] = list(PUBLISHED[published][role])
        figures.append((role, _lines(curves, role, styles, first=1)))
    text = f"H-mean of {metric} minus that of {baseline.name}, after each block from D1 on."
    if published:
        text += (
            f" Dashed: the paper's gains on {published}, over the best of its own competitors and with its own models. They"
            " are context, not a mark that these runs are held to."
        )
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


def _overlaps(runs: Sequence[FinishedRun]) -> str:
    found = {run.name: shares for run in runs if (shares := overlap_of(run.summary))}
    styles = styles_of([run.name for run in runs])
    draw = partial(draw_shares, curves=found, title=SHARED, styles=styles, legend=False) if found else None
    text = "Share of the teacher system's top 20 that the student has too, when a block ends."
    return markup.section("Agreement", text, _figures([("agreement", draw)]))


def _troubles(runs: Sequence[FinishedRun]) -> str:
    found = {run.name: troubles(run.summary, run.manifest) for run in runs}
    return markup.definitions({name: " ".join(texts) or NONE for name, texts in found.items()})


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
        found = [run.settings.get(key) for run in runs]
        values = [NOTHING if value is None else str(value) for value in found]
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
