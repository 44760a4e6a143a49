"""The command line: LightningCLI over the stream."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning_utilities.core.rank_zero import rank_zero_only
from typing_extensions import override

from ccd_lightning.callbacks import (
    DistillationCallback,
    Recommendations,
    StreamCheckpoint,
    StreamProgress,
    StreamReport,
)
from ccd_lightning.checkpoint import checkpoints_in
from ccd_lightning.data import ContinualDataModule
from ccd_lightning.memory import keep_freed_memory
from ccd_lightning.modules import CollaborativeDistillation
from ccd_lightning.trainer import StreamTrainer

USER_ERROR = 2
"""Exit code of a mistake in input or configuration."""


class CCDCLI(LightningCLI):
    """Subcommands fit, test, predict and export; every value of the YAML can be given on the command line."""

    def __init__(self, args: list[str] | None = None) -> None:
        super().__init__(
            CollaborativeDistillation,
            ContinualDataModule,
            trainer_class=StreamTrainer,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults={"enable_progress_bar": False},
            parser_kwargs={"parser_mode": "omegaconf"},
            args=args,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Methods of the Trainer that can be called, with the arguments that the command line does not show."""
        hidden = {"model", "datamodule", "train_dataloaders", "val_dataloaders", "dataloaders", "weights_only"}
        return {
            "fit": hidden,
            "test": hidden,
            "predict": hidden | {"return_predictions"},
            "export": hidden,
        }

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """One key for each callback, so that `--distillation.exclusion 20` works."""
        parser.add_lightning_class_args(DistillationCallback, "distillation", subclass_mode=True, required=False)
        parser.add_lightning_class_args(StreamCheckpoint, "checkpoint")
        parser.add_lightning_class_args(StreamReport, "report")
        parser.add_lightning_class_args(StreamProgress, "progress")
        parser.add_lightning_class_args(Recommendations, "recommendations")
        parser.set_defaults({"distillation": {"class_path": "ccd_lightning.callbacks.DistillationCallback"}})
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    @override
    def before_instantiate_classes(self) -> None:
        """A run's folder is named after its configuration, unless it is given."""
        trainer = self._chosen().trainer
        if trainer.default_root_dir is None:
            trainer.default_root_dir = str(Path("runs") / self._config_name())

    def before_fit(self) -> None:
        """Refuse to mix two streams in one folder; keep the resolved configuration beside the run."""
        run = Path(self.trainer.default_root_dir)
        chosen = self._chosen()
        if chosen.get("ckpt_path") is None and checkpoints_in(run):
            raise MisconfigurationException(
                f"{run} already holds a stream. To go on with it, add `--ckpt_path last`; to start another one, name another"
                " folder with `--trainer.default_root_dir`, or remove this one."
            )
        self._save_config(run)

    @rank_zero_only
    def _save_config(self, run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        config = self._chosen().clone()
        config.pop("config", None)
        config["ckpt_path"] = None
        parser = self._parser(self.subcommand)
        draft = run / "config.yaml.tmp"
        parser.save(config, str(draft), skip_none=False, overwrite=True, multifile=False)
        draft.replace(run / "config.yaml")

    def _chosen(self) -> Any:
        return self.config[str(self.subcommand)]

    def _config_name(self) -> str:
        files = self._chosen().get("config") or []
        return Path(str(files[0])).stem if files else "default"


def main(args: list[str] | None = None) -> None:
    """Run the command line; a mistake in input or configuration ends in one message and exit code 2.

    Args:
        args: arguments in place of those of the process; `--debug` shows tracebacks.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in arguments
    keep_freed_memory()
    try:
        CCDCLI([argument for argument in arguments if argument != "--debug"])
    except (MisconfigurationException, ValueError, OSError) as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from error
