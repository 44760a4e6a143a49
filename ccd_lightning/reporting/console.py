"""What a terminal shows of a stream: lines that stay, and a panel that changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ccd_lightning.reporting.tables import AVERAGES, Summary
from ccd_lightning.reporting.units import NOTHING, TIED, compact, duration, fold, score
from ccd_lightning.types import Stage, StageKind

DOT = f"{TIED}· "
FRAME = 4
"""Columns that the panel's frame takes."""


@dataclass
class View:
    """Where a stream stands.

    Attributes:
        num_blocks: blocks of the stream.
        num_stages: stages of the stream.
        stages_done: how many of them are done.
        stage: the present stage.
        phase: what happens in it.
        epoch: epochs done in the stage.
        max_epochs: epochs of the stage at most.
        share: part of the stage that is done, from 0 to 1.
        losses: objective -> mean of the last epoch's steps.
        recalls: validation Recall@20 at the evaluations of the stage.
        validates: whether the stage has evaluations at all.
        latest: what was measured last in earlier stages, and of whom.
        elapsed: seconds since the stream began or went on.
        remaining: seconds it will still take; ``None`` if nobody knows.
    """

    num_blocks: int
    num_stages: int
    stages_done: int = 0
    stage: Stage | None = None
    phase: Literal["preparing", "training", "measuring"] = "preparing"
    epoch: int = 0
    max_epochs: int = 0
    share: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    recalls: list[float] = field(default_factory=list)
    validates: bool = True
    latest: str = ""
    elapsed: float = 0.0
    remaining: float | None = None


def model_name(stage: Stage) -> str:
    """Who learns in a stage.

    >>> model_name(Stage(1, StageKind.TEACHER_UPDATE, teacher=0)), model_name(Stage(0, StageKind.DISTILLATION))
    ('teacher 0', 'student')
    """
    return "student" if stage.teacher is None else f"teacher {stage.teacher}"


def stage_title(stage: Stage) -> str:
    """What happens in a stage, to which model.

    >>> stage_title(Stage(1, StageKind.TEACHER_UPDATE, teacher=0)), stage_title(Stage(0, StageKind.DISTILLATION))
    ('teacher 0 update', 'student distillation')
    """
    work = {StageKind.BASE: "base", StageKind.DISTILLATION: "distillation"}.get(stage.kind, "update")
    return f"{model_name(stage)} {work}"


def stage_line(view: View, epochs: int, seconds: float, times: bool) -> str:
    """One line about a stage that is over.

    Args:
        view: at its end.
        epochs: how many it took.
        seconds: how long it took.
        times: also tell how far the stream is, where no panel does.
    """
    best = [f"valid{TIED}recall@20{TIED}{score(max(view.recalls))}"] if view.recalls else []
    losses = [_losses(view)] if view.losses else []
    parts = [
        _place(view),
        f"{epochs} {'epoch' if epochs == 1 else 'epochs'} in {duration(seconds)}",
        *best,
        *losses,
        *(_times(view) if times else []),
    ]
    return DOT.join(parts)


def epoch_line(view: View) -> str:
    """One line about a stage that goes on, where there is no panel."""
    return DOT.join([_place(view), _state(view), _recalls(view), _losses(view), *_times(view)])


def measured_line(summary: Summary, role: str, block: int, metric: str) -> str:
    """One line about what a role reached after a block."""
    found = summary[role][metric]
    blocks = " ".join(f"D{index}{TIED}{score(value)}" for index, value in enumerate(found["A"][block]))
    averages = " ".join(f"{name}{TIED}{score(found[name][block])}" for name in AVERAGES)
    return f"{role} after block {block}: {metric} {blocks}{DOT}{averages}"


def measured_last(summary: Summary, role: str, block: int, metric: str) -> str:
    """The newest entry of a performance matrix, in a few words."""
    return f"test {metric} {score(summary[role][metric]['A'][block][block])} ({role} on D{block})"


def live_panel(view: View, width: int) -> RenderableType:
    """The state of the stream at one glance, on some four lines within a frame.

    Args:
        view: where the stream stands.
        width: columns.
    """
    if view.stage is None:
        return Panel(Text("getting ready"), title="stream", title_align="left", width=width)
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(no_wrap=True)
    bar.add_column(ratio=1)
    bar.add_row(_state(view), ProgressBar(total=1.0, completed=1.0 if view.phase == "measuring" else view.share))
    lines = [fold(line, width - FRAME) for line in (_recalls(view), _losses(view), DOT.join(_times(view)))]
    content = Group(bar, *(Text(line, no_wrap=True, overflow="ellipsis") for line in lines))
    return Panel(content, title=Text(fold(_place(view))), title_align="left", width=width)


def _place(view: View) -> str:
    assert view.stage is not None
    block = view.stage.block
    return f"block {block} ({block + 1} of {view.num_blocks}){DOT}{stage_title(view.stage)}"


def _state(view: View) -> str:
    return (
        f"epoch {min(view.epoch + 1, view.max_epochs)} of {view.max_epochs}" if view.phase == "training" else view.phase
    )


def _recalls(view: View) -> str:
    if view.recalls:
        return f"valid{TIED}recall@20{TIED}{score(view.recalls[-1])}{DOT}best of the stage {score(max(view.recalls))}"
    if view.latest:
        return view.latest
    return "not validated yet" if view.validates else "no validation in this stage (evaluate_every: 0)"


def _losses(view: View) -> str:
    values = " ".join(f"{name}{TIED}{compact(value)}" for name, value in view.losses.items())
    return f"loss {values or NOTHING}"


def _times(view: View) -> list[str]:
    place = f"stage {min(view.stages_done + 1, view.num_stages)} of {view.num_stages}"
    left = [f"about {duration(max(view.remaining, 0.1))} left"] if view.remaining else []
    return [part.replace(" ", TIED) for part in (place, f"{duration(view.elapsed)} elapsed", *left)]
