"""What a terminal shows of a stream: lines that stay, a panel that changes, a table at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ccd_lightning.record import ROLES
from ccd_lightning.reporting.tables import AVERAGES, Summary
from ccd_lightning.reporting.units import NOTHING, compact, duration, score, size
from ccd_lightning.types import Stage, StageKind

DOT = " · "
SHOWN_BLOCKS = 8
"""The last blocks of a stream that a table of 80 columns has room for."""


@dataclass
class View:
    """Where a stream stands.

    Attributes:
        num_blocks: blocks of the stream.
        num_stages: stages of the stream.
        stages_done: how many of them are done.
        stage: the present stage.
        measuring: whether it is over and its models are measured.
        epoch: epochs done in the stage.
        max_epochs: epochs of the stage at most.
        share: part of the stage that is done, from 0 to 1.
        losses: objective -> mean of the last epoch's steps.
        recalls: validation Recall@20 at the evaluations of the stage.
        elapsed: seconds since the stream began or went on.
        remaining: seconds it will still take; ``None`` if nobody knows.
    """

    num_blocks: int
    num_stages: int
    stages_done: int = 0
    stage: Stage | None = None
    measuring: bool = False
    epoch: int = 0
    max_epochs: int = 0
    share: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    recalls: list[float] = field(default_factory=list)
    elapsed: float = 0.0
    remaining: float | None = None


def stage_title(stage: Stage) -> str:
    """What happens in a stage, to which model.

    >>> stage_title(Stage(1, StageKind.TEACHER_UPDATE, teacher=0)), stage_title(Stage(0, StageKind.DISTILLATION))
    ('teacher 0 update', 'student distillation')
    """
    work = {StageKind.BASE: "base", StageKind.DISTILLATION: "distillation"}.get(stage.kind, "update")
    return f"{'student' if stage.teacher is None else f'teacher {stage.teacher}'} {work}"


def stage_line(view: View, epochs: int, seconds: float) -> str:
    """One line about a stage that is over."""
    assert view.stage is not None
    parts = [f"block {view.stage.block}", stage_title(view.stage), f"{epochs} epochs", duration(seconds)]
    if view.recalls:
        parts.append(f"valid recall@20 {score(max(view.recalls))}")
    if view.losses:
        parts.append(_losses(view))
    return f"[{view.stage.block + 1}/{view.num_blocks}] {DOT.join(parts)}"


def measured_line(summary: Summary, role: str, block: int, metric: str) -> str:
    """One line about what a role reached after a block."""
    found = summary[role][metric]
    blocks = " ".join(f"D{index} {score(value)}" for index, value in enumerate(found["A"][block]))
    averages = " ".join(f"{name} {score(found[name][block])}" for name in AVERAGES)
    return f"{role} after block {block}: {metric} {blocks}{DOT}{averages}"


def live_panel(view: View) -> RenderableType:
    """The state of the stream at one glance, on four lines within a frame."""
    stage = view.stage
    if stage is None:
        return Panel(Text("getting ready"), title="stream", title_align="left")
    title = f"block {stage.block} ({stage.block + 1} of {view.num_blocks}){DOT}{stage_title(stage)}"
    state = "measuring" if view.measuring else f"epoch {min(view.epoch + 1, view.max_epochs)} of {view.max_epochs}"
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(no_wrap=True)
    bar.add_column(ratio=1)
    bar.add_row(state, ProgressBar(total=1.0, completed=1.0 if view.measuring else view.share))
    lines = [_recalls(view), _losses(view), _times(view)]
    return Panel(Group(bar, *(_line(line) for line in lines)), title=title, title_align="left")


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _recalls(view: View) -> str:
    if not view.recalls:
        return f"valid recall@20 {NOTHING}"
    return f"valid recall@20 {score(view.recalls[-1])}{DOT}best of the stage {score(max(view.recalls))}"


def _losses(view: View) -> str:
    return " ".join(f"{name} {compact(value)}" for name, value in view.losses.items()) or f"loss {NOTHING}"


def _times(view: View) -> str:
    left = "" if view.remaining is None else f"{DOT}about {duration(view.remaining)} left"
    return f"stage {min(view.stages_done + 1, view.num_stages)} of {view.num_stages}{DOT}{duration(view.elapsed)}{left}"


def final_table(summary: Summary, metric: str, costs: Sequence[tuple[str, int]]) -> RenderableType:
    """Averages of every role after each block, and the seconds of the block, within 80 columns.

    Args:
        summary: content of ``metrics.json``.
        metric: the metric to show.
        costs: names of models with their bytes.
    """
    found = [(role, summary[role][metric]) for role in ROLES if metric in summary[role]]
    blocks = max((len(curves["H"]) for _, curves in found), default=0)
    shown = range(max(0, blocks - SHOWN_BLOCKS), blocks)
    sizes = DOT.join(f"{name} {size(count)}" for name, count in costs)
    table = Table(title=f"{metric} after each block", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("", "", *(f"D{block}" for block in shown)):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for role, curves in found:
        for name in AVERAGES:
            title = role if name == AVERAGES[0] else ""
            table.add_row(
                title, name, *(score(curves[name][block]) for block in shown), end_section=name == AVERAGES[-1]
            )
    seconds: list[list[float]] = list(summary["seconds"].values())
    spent = [sum(kind[block] for kind in seconds if block < len(kind)) for block in shown]
    table.add_row("seconds", "", *(f"{value:.1f}" for value in spent))
    return Group(table, Text(f"{sizes}{DOT}peak memory {size(summary['peak_bytes'])}"))
