"""Tables, figures and a page about the run, in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from typing_extensions import override

from ccd_lightning.data import IdMap, PairSet
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.modules import CollaborativeDistillation
from ccd_lightning.objectives import top_overlap
from ccd_lightning.record import OVERLAP, ROLES
from ccd_lightning.reporting import (
    AVERAGES,
    METRIC,
    model_cost,
    pick_metric,
    stream_manifest,
    to_csv,
    to_json,
    write_atomically,
)
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import Block, Interactions, Stage

VERSION = 1

OVERLAP_USERS = 4096
"""Over how many users at most a teacher's and a student's top items are compared."""


class StreamReport(StreamCallback):
    """Keeps the reports of a run up to date in `trainer.default_root_dir`; each file is whole at any time.

    After every stage ``stream.json`` (the manifest), ``metrics.json`` and ``metrics.csv``; after every block also
    ``users.parquet`` and ``items.parquet`` (raw and contiguous ids), ``report.html`` and ``report.png``. The averages
    of every role then go to the Trainer's loggers.

    Args:
        metric: what figures and the page show; without Recall@20 among the metrics, the first one stands in for it.
        figures: whether to write ``report.html`` and ``report.png``.
    """

    writes = True

    def __init__(self, metric: str = METRIC, figures: bool = True) -> None:
        self.metric, self.figures = metric, figures
        self.costs: dict[int, dict[str, dict[str, float | int]]] = {}

    @override
    def on_stream_start(self, trainer: StreamTrainer, system: CollaborativeDistillation) -> None:
        """Refuse a metric that will never be measured, then say that the run has begun."""
        if self.metric not in (METRIC, *system.metric_names):
            raise ValueError(
                f"The report's `metric` is {self.metric!r}, but the run measures {', '.join(system.metric_names)}: name one of"
                " these."
            )
        self._write_tables(trainer)

    @override
    def on_stage_end(self, trainer: StreamTrainer, system: CollaborativeDistillation, stage: Stage) -> None:
        """Write what costs little."""
        self._write_tables(trainer)

    @override
    def on_block_end(self, trainer: StreamTrainer, system: CollaborativeDistillation, block: Block) -> None:
        """Measure what the models cost and how far they agree, then write everything."""
        home = system.device
        system.to(trainer.strategy.root_device)
        self.costs[block.index] = _costs_of(system)
        trainer.record.add_overlap(block.index, _overlap_of(system, block))
        system.to(home)
        self._write_tables(trainer)
        self._write_block(trainer, block)
        self._log(trainer, block)

    @override
    def state_dict(self) -> dict[str, Any]:
        """Costs of the models after each block."""
        return {"version": VERSION, "costs": self.costs}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.costs = dict(state_dict.get("costs", {}))

    def _write_tables(self, trainer: StreamTrainer) -> None:
        if not trainer.is_global_zero:
            return
        run, summary = Path(trainer.default_root_dir), trainer.record.summary()
        write_atomically(run / "metrics.json", to_json(summary))
        write_atomically(run / "metrics.csv", to_csv(summary))
        write_atomically(run / "stream.json", to_json(stream_manifest(trainer.stream, trainer.record, self.costs)))

    def _write_block(self, trainer: StreamTrainer, block: Block) -> None:
        if not trainer.is_global_zero:
            return
        run, stream = Path(trainer.default_root_dir), trainer.stream.stream
        for name, ids, count in (("users", stream.users, block.num_users), ("items", stream.items, block.num_items)):
            IdMap(ids.raw.head(count)).save(run / f"{name}.parquet")
        if self.figures:
            self._write_figures(trainer, run)

    def _write_figures(self, trainer: StreamTrainer, run: Path) -> None:
        # Whoever imports the callbacks does not wait for what draws.
        from ccd_lightning.reporting.figures import sheet, to_png
        from ccd_lightning.reporting.page import report_page
        from ccd_lightning.reporting.panels import panels

        summary = trainer.record.summary()
        manifest = stream_manifest(trainer.stream, trainer.record, self.costs)
        metric = pick_metric(summary, self.metric)
        config = run / "config.yaml"
        text = config.read_text() if config.is_file() else None
        write_atomically(run / "report.html", report_page(summary, manifest, metric, text))
        image = sheet([figure.draw for figure in panels(summary, metric)], title=f"{metric}, full ranking, test split")
        write_atomically(run / "report.png", to_png(image))

    def _log(self, trainer: StreamTrainer, block: Block) -> None:
        summary = trainer.record.summary()
        metric = pick_metric(summary, self.metric)
        values = {f"stream/{role}/{name}": summary[role][metric][name][-1] for role in ROLES for name in AVERAGES}
        for logger in trainer.loggers:
            logger.log_metrics({**values, "block": block.index}, step=trainer.global_step)
            logger.save()


# On every process, since the scores of a sharded model need all of them.
def _costs_of(system: CollaborativeDistillation) -> dict[str, dict[str, float | int]]:
    teachers = [teacher.backbone for teacher in system.members()]
    student = system.student.backbone
    return {
        "teacher": model_cost(teachers, system.teacher_system().scores, system.device),
        "student": model_cost([student], student.scores, system.device),
    }


def _overlap_of(system: CollaborativeDistillation, block: Block) -> float:
    """As a test of the block masks them, the user's train and validation items of the block are left out.

    Of many users every n-th stands for the others: to rank for all of them would cost as much as all other measuring.
    """
    asked = Interactions.concatenate([block.train, block.valid])
    seen = PairSet.from_interactions(asked, block.num_users, block.num_items)
    users = torch.arange(0, block.num_users, -(-block.num_users // OVERLAP_USERS))
    return top_overlap(system.teacher_system(), system.student.backbone, OVERLAP, seen, system.device, users)
