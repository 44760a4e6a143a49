"""The report of a run as one page that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ccd_lightning.reporting import markup, sections
from ccd_lightning.reporting.figures import panel, to_svg
from ccd_lightning.reporting.panels import Panel, panels
from ccd_lightning.reporting.published import published_section
from ccd_lightning.reporting.tables import Summary
from ccd_lightning.reporting.troubles import NONE, asked_users, troubles

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
        _troubles(summary, manifest),
        *_performance(figures, summary, metric),
        _teaching(figures, summary),
        *_cost_and_data(summary, manifest),
        published_section(manifest),
        markup.section("Words", "What the names on this page mean.", markup.definitions(TERMS)),
        markup.folded("Configuration of the run", markup.preformatted(config) if config else ""),
    ]
    return markup.document("Stream report", parts)


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


def _troubles(summary: Summary, manifest: Mapping[str, Any]) -> str:
    found = troubles(summary, manifest)
    return markup.section(
        "What went wrong",
        "" if found else NONE,
        markup.bullets(found) or " ",
        markup.paragraph(asked_users(summary, manifest)),
    )


def _teaching(figures: list[Panel], summary: Summary) -> str:
    return markup.section(
        "Who taught whom",
        "Bars: pairs (user, item) that a model was taught again, in the last draw of the block's stage, by who remembered them."
        " The proxies are slow (stability) and fast (plasticity) averages of the student's past. Line: the share of the"
        " teacher system's top 20 that the student has in its own when the block ends, after Stage 1; mean over all users"
        " that both know, without what they had in the block's train and validation parts.",
        _figures(figures, "teaching"),
        markup.folded("Pairs of every stage", sections.replay_table(summary)),
    )


def _cost_and_data(summary: Summary, manifest: Mapping[str, Any]) -> list[str]:
    costs = (sections.models_table(manifest), sections.seconds_table(summary))
    return [
        markup.section("Cost", "What the teacher system and the student cost to keep, to ask and to train.", *costs),
        markup.section("The stream", "Sizes after each block.", sections.blocks_table(manifest, summary)),
    ]


def _figures(figures: list[Panel], section: str, layout: str = "") -> str:
    drawn = "".join(
        f"<figure>{to_svg(panel(figure.draw), escape(figure.title))}</figure>"
        for figure in figures
        if figure.section == section
    )
    return f'<div class="figures {layout}">{drawn}</div>' if drawn else ""
