"""The report of a run as one page that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ccd_lightning.reporting import markup, sections
from ccd_lightning.reporting.figures import panel, to_svg
from ccd_lightning.reporting.panels import Panel, panels
from ccd_lightning.reporting.style import STYLE
from ccd_lightning.reporting.tables import Summary

TERMS = {
    "A[k][j]": "the metric on the test split of block D_j after block k was learned; every known item is ranked.",
    "LA": "learning average, the mean of A[j][j] over the blocks so far: how well each was learned when new.",
    "RA": "retained average, the mean of A[k][j] over the blocks so far: how well all are served now.",
    "H-mean": "2 LA RA / (LA + RA): high only if learning and retention both are.",
    "forgetting": "mean loss on earlier blocks against the best they ever had; below 0, they have gained.",
    "teacher": "the fused ranking of all the teachers.",
    "student": "the compact model after its update on the block; on D_0 after its distillation.",
    "distilled": "the same model after it was distilled from the updated teacher system: what is deployed next.",
}


def report_page(summary: Summary, manifest: Mapping[str, Any], metric: str, config: str | None = None) -> str:
    """One self-contained HTML page.

    Args:
        summary: content of ``metrics.json``.
        manifest: content of ``stream.json``.
        metric: the metric to show.
        config: the run's configuration as text.
    """
    figures = panels(summary, metric)
    parts = [
        _header(manifest),
        sections.key_numbers(summary, manifest, metric),
        *_performance(figures, summary, metric),
        *_cost_and_data(summary, manifest),
        markup.section("Words", "What the names on this page mean.", _terms()),
        markup.folded("Configuration of the run", config) if config else "",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Stream report</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _header(manifest: Mapping[str, Any]) -> str:
    done = sum(block["finished"] for block in manifest["blocks"])
    facts = [
        str(manifest["source"]),
        f"{done} of {len(manifest['blocks'])} blocks",
        f"seed {manifest['seed']}",
        f"ccd-lightning {manifest['version']}",
        str(manifest["status"]),
    ]
    return f'<header><h1>Stream report</h1><p class="soft">{escape(" · ".join(facts))}</p></header>'


def _performance(figures: list[Panel], summary: Summary, metric: str) -> list[str]:
    return [
        markup.section(
            "Performance matrices",
            f"{metric}, A[k][j]: each row is the state after a block, each column a block that is asked."
            " Down a column, a fading colour is forgetting. The three share one scale.",
            _figures(figures, "matrices"),
        ),
        markup.section(
            "Learning and retention",
            f"{metric}. LA says how well new blocks are learned, RA how well all blocks so far are served,"
            " H-mean unites both.",
            _figures(figures, "curves", "two"),
            sections.averages_table(summary, metric),
        ),
        markup.section(
            "Newcomers",
            f"{metric} on D_k just after block k, for users who first appear in D_k, and counting only items that do.",
            _figures(figures, "newcomers", "two"),
        ),
    ]


def _cost_and_data(summary: Summary, manifest: Mapping[str, Any]) -> list[str]:
    costs = (sections.models_table(manifest), sections.seconds_table(summary))
    return [
        markup.section("Cost", "What the teacher system and the student cost to keep, to ask and to train.", *costs),
        markup.section("The stream", "Sizes after each block.", sections.blocks_table(manifest, summary)),
        markup.section("Replayed pairs", "Soft labels a stage drew, by source.", sections.replay_table(summary)),
    ]


def _figures(figures: list[Panel], section: str, layout: str = "") -> str:
    drawn = "".join(
        f"<figure>{to_svg(panel(figure.draw), escape(figure.title))}</figure>"
        for figure in figures
        if figure.section == section
    )
    return f'<div class="figures {layout}">{drawn}</div>' if drawn else ""


def _terms() -> str:
    return f"<dl>{''.join(f'<dt>{escape(term)}</dt><dd>{escape(text)}</dd>' for term, text in TERMS.items())}</dl>"
