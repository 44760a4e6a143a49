"""What Weights & Biases is told of a stream, beside the numbers that every logger gets."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import WandbLogger
from typing_extensions import override

from ccd_lightning.callbacks.report import StreamReport
from ccd_lightning.export import export_model
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.modules import CollaborativeDistillation
from ccd_lightning.record import ROLES
from ccd_lightning.reporting import AVERAGES, COLUMNS, METRIC, metric_rows, pick_metric, to_json, write_atomically
from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.types import Block

if TYPE_CHECKING:
    from wandb import Run

FILE = "wandb.json"
"""Where a run's folder keeps the id of its W&B run."""

STAGE_COLUMNS = ("name", "block", "kind", "teacher", "epochs", "seconds")
MODEL_COLUMNS = ("parameters", "bytes", "latency_ms", "latency_users")


class WandbStream(StreamCallback):
    """Tells Weights & Biases of the stream; without a `WandbLogger` among the Trainer's loggers it does nothing.

    Losses, validation, test metrics and averages come by Lightning's own logging. This callback plots those of the stream
    against the block, adds the performance matrices (heat maps and a table), the costs and the student as an artifact after
    every block, and lets a stream that goes on also go on with its W&B run, whose id stands in ``wandb.json``.

    It reads what :class:`StreamReport` measures, so that callback stands before it.

    Args:
        artifact: whether to log the student, as `export --seen false` writes it, after every block.
    """

    def __init__(self, artifact: bool = True) -> None:
        self.artifact = artifact

    @override
    def on_stream_start(self, trainer: StreamTrainer, system: CollaborativeDistillation) -> None:
        """Begin the W&B run, or go on with the one that the folder belongs to."""
        for logger in _loggers(trainer):
            run = _begin(logger, Path(trainer.default_root_dir))
            for name in _against_blocks(trainer, system):
                run.define_metric(name, step_metric="block")

    @override
    def on_stream_restored(self, trainer: StreamTrainer, system: CollaborativeDistillation) -> None:
        """Test within the W&B run of the stream; otherwise Lightning would begin another one."""
        for logger in _loggers(trainer):
            _begin(logger, Path(trainer.default_root_dir))

    @override
    def on_block_end(self, trainer: StreamTrainer, system: CollaborativeDistillation, block: Block) -> None:
        """Log matrices and costs, then the student."""
        for logger in _loggers(trainer):
            if not logger.experiment.disabled:
                logger.log_metrics({"block": block.index, **_tables(trainer)}, step=trainer.global_step)
                self._log_student(logger.experiment, trainer, system, block)

    def _log_student(self, run: Run, trainer: StreamTrainer, system: CollaborativeDistillation, block: Block) -> None:
        student = system.student.backbone
        if not self.artifact:
            return
        from wandb import Artifact

        was_training = student.training
        with TemporaryDirectory() as folder:
            export = Path(folder) / "export"
            manifest = export_model(student.eval(), trainer.stream.stream, export, seen=False)
            artifact = Artifact(f"student-{run.id}", "model", metadata=manifest)
            for file in sorted(export.iterdir()):
                artifact.add_file(str(file))
            run.log_artifact(artifact, aliases=[f"block{block.index}"])
        student.train(was_training)


def trial_folder() -> Path | None:
    """A folder for the trial of a W&B sweep that this process is, by the ids that the sweep's agent gave; else ``None``."""
    sweep, trial = os.environ.get("WANDB_SWEEP_ID"), os.environ.get("WANDB_RUN_ID")
    return Path(f"sweep-{sweep.rpartition('/')[2]}") / trial if sweep and trial else None


def _loggers(trainer: StreamTrainer) -> list[WandbLogger]:
    """Where to log: on the first process alone."""
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger) and trainer.is_global_zero]


def _against_blocks(trainer: StreamTrainer, system: CollaborativeDistillation) -> Iterator[str]:
    """Metrics whose axis is the block; in full, because W&B lets any pattern win over them, also Lightning's own."""
    yield from ("cost/seconds", "cost/peak_bytes")
    yield from (f"matrix/{role}" for role in ROLES)
    for role in ROLES:
        yield from (f"stream/{role}/{name}" for name in AVERAGES)
        for block in trainer.stream.blocks:
            yield from (
                f"test/{role}/{name}/D{block.index}" for name in (*system.metric_names, "users", "unknown_users")
            )


def _begin(logger: WandbLogger, folder: Path) -> Run:
    """The logger's W&B run, which is the folder's own unless the user, or a sweep's agent, names another one."""
    folder.mkdir(parents=True, exist_ok=True)
    # Only here the folder is known to be right, and W&B reads its variables once a process: so the built logger is told.
    options = logger._wandb_init
    options["id"] = options["id"] or os.environ.get("WANDB_RUN_ID") or _saved(folder / FILE)
    # LightningCLI passes every option on, and so takes away the logger's own default: W&B would begin the run afresh.
    options["resume"] = options["resume"] or "allow"
    options["dir"] = options["dir"] or os.environ.get("WANDB_DIR") or str(folder)
    run = _started(logger)
    if not run.disabled:
        write_atomically(folder / FILE, to_json({"id": run.id}))
    return run


def _started(logger: WandbLogger) -> Run:
    from wandb.errors import Error

    try:
        run: Run = logger.experiment
    except Error as error:
        # No key, a refusal, or a machine that cannot reach the server.
        reason = "has no API key" if "No API key" in str(error) else f"refuses the run ({error})"
        raise MisconfigurationException(
            f"W&B {reason}: run `wandb login`, or put `WANDB_MODE=offline` before the command."
        ) from error
    return run


def _saved(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        return str(json.loads(path.read_text())["id"])
    except (ValueError, TypeError, KeyError) as error:
        raise MisconfigurationException(
            f"{path} should name the W&B run that the folder belongs to, as JSON with an `id`, but cannot be read so ({error}):"
            " remove it to go on in a new W&B run, or name the run in WANDB_RUN_ID."
        ) from error


def _tables(trainer: StreamTrainer) -> dict[str, Any]:
    """Heat maps, tables and costs as W&B takes them."""
    from wandb import Table

    report = next((callback for callback in trainer.callbacks if isinstance(callback, StreamReport)), None)
    summary = trainer.record.summary()
    metric = pick_metric(summary, report.metric if report else METRIC)
    rows = [list(row) for row in metric_rows(summary) if row[COLUMNS.index("metric")] == metric]
    stages = [[entry[name] for name in STAGE_COLUMNS] for entry in trainer.record.stages]
    costs = report.costs if report else {}
    models = [
        [block, role, *(cost[name] for name in MODEL_COLUMNS)]
        for block, of in costs.items()
        for role, cost in of.items()
    ]
    return {
        **_heat_maps(summary, metric),
        "matrix/table": Table(columns=list(COLUMNS), data=rows),
        "cost/stages": Table(columns=list(STAGE_COLUMNS), data=stages),
        "cost/models": Table(columns=["block", "role", *MODEL_COLUMNS], data=models),
        "cost/seconds": sum(entry["seconds"] for entry in trainer.record.stages),
        "cost/peak_bytes": trainer.record.peak_bytes,
    }


def _heat_maps(summary: Mapping[str, Any], metric: str) -> dict[str, Any]:
    # Whoever imports the callbacks does not wait for what draws.
    from PIL import Image as Picture
    from wandb import Image

    from ccd_lightning.reporting.figures import panel, to_png
    from ccd_lightning.reporting.panels import panels

    return {
        f"matrix/{found.title}": Image(Picture.open(io.BytesIO(to_png(panel(found.draw)))), caption=metric)
        for found in panels(summary, metric)
        if found.section == "matrices"
    }
