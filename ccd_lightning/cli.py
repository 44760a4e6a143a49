"""The command line: LightningCLI over the stream."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from jsonargparse import Namespace
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
    WandbStream,
    trial_folder,
)
from ccd_lightning.checkpoint import has_saved, refuse_second_stream, whole_file
from ccd_lightning.command_names import COMMANDS
from ccd_lightning.config_files import check_config_files, check_empty_sections
from ccd_lightning.data import ContinualDataModule
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.memory import keep_freed_memory
from ccd_lightning.mistakes import KindParser, message_of
from ccd_lightning.modules import CollaborativeDistillation
from ccd_lightning.processes import ProcessLostError
from ccd_lightning.reporting.quiet import QuietLightning
from ccd_lightning.signals import was_requeued
from ccd_lightning.trainer import StreamTrainer

USER_ERROR = 2
"""Exit code of a mistake in input or configuration."""

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the signal's number, as shells count."""

_DESCRIPTION = "Continual collaborative distillation of recommenders: learn a stream of blocks, measure it, deploy what it learned."
_EPILOG = "Begin with `python train.py fit --config configs/ccd.yaml`."


class _ConfigKeeper(StreamCallback):
    """Saves the configuration once data, settings and checkpoint are known to fit, so that no mistake replaces a good one."""

    def __init__(self, save: Callable[[Path], None]) -> None:
        self._save = save

    @override
    def on_stream_start(self, trainer: StreamTrainer, system: CollaborativeDistillation) -> None:
        self._save(Path(trainer.default_root_dir))


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
            # Each stage has an optimizer of its own, set by `trainer.plan`.
            auto_configure_optimizers=False,
            parser_class=KindParser,
            parser_kwargs={
                "parser_mode": "omegaconf",
                "usage": "python train.py COMMAND [--KEY VALUE ...]",
                "description": _DESCRIPTION,
                "epilog": _EPILOG,
            },
            args=args,
        )

    @override
    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        """List the commands beside the Trainer's too, whose parsers are made when they are called."""
        super()._add_subcommands(parser, **kwargs)
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                listed = [action._ChoicesPseudoAction(name, (), summary) for name, summary in COMMANDS.items()]
                action._choices_actions.extend(listed)

    @override
    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Without this, the help would begin with a page that only names all the options."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.usage = f"python train.py {subcommand} --config FILE [--config OVERLAY] [--KEY VALUE ...]"
        return parser

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Look at the configuration files first, because the parser's complaints do not name them."""
        arguments = sys.argv[1:] if args is None else args
        if isinstance(arguments, list):
            contents = check_config_files(arguments)
            self.config = parser.parse_args(arguments)
            check_empty_sections(contents, self.config[self.config.subcommand].as_dict())
        else:
            self.config = parser.parse_object(arguments)

    @override
    def _parse_ckpt_path(self) -> None:
        """Stream checkpoints hold no hyper-parameters, and a file that is none of ours is refused when it is read."""

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
        # Behind the report, whose figures it passes on.
        parser.add_lightning_class_args(WandbStream, "wandb")
        parser.set_defaults({"distillation": {"class_path": "ccd_lightning.callbacks.DistillationCallback"}})
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    @override
    def before_instantiate_classes(self) -> None:
        """A run's folder is named after its configuration, unless it is given; each trial of a W&B sweep has its own."""
        trainer, trial = self._chosen().trainer, trial_folder()
        if not isinstance(trainer, Namespace):
            raise MisconfigurationException(
                f"`trainer` is {trainer!r}, but holds the options of the Trainer: put some below it, or leave it out."
            )
        if trainer.default_root_dir is None:
            trainer.default_root_dir = str(Path("runs") / (trial or self._config_name()))
            if trial and self.subcommand == "fit" and has_saved(Path(trainer.default_root_dir)):
                # W&B starts a trial again that was taken off its machine.
                self._chosen().ckpt_path = self._chosen().ckpt_path or "last"

    @override
    def instantiate_classes(self) -> None:
        """Build what the configuration names; values of a wrong type are mistakes in it."""
        try:
            # What Lightning says of devices and of its other products would come before every command.
            with QuietLightning():
                super().instantiate_classes()
        except (TypeError, ImportError) as error:
            raise MisconfigurationException(
                f"What the configuration names cannot be built ({error}): mend the value; `--debug` shows where it happened."
            ) from error

    @override
    def _set_seed(self) -> None:
        with QuietLightning():
            super()._set_seed()

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        """A fit is told by `StreamProgress`, which can let Lightning speak."""
        with nullcontext() if subcommand == "fit" else QuietLightning():
            super()._run_subcommand(subcommand)

    def before_test(self) -> None:
        """Only a trained stream can be measured."""
        self._require_checkpoint()

    def before_predict(self) -> None:
        """Only a trained student recommends."""
        self._require_checkpoint()

    def before_fit(self) -> None:
        """Refuse to mix two streams in one folder; keep the resolved configuration beside the run."""
        run = Path(self.trainer.default_root_dir)
        if self._chosen().get("ckpt_path") is None and not was_requeued():
            refuse_second_stream(run)
        cast(StreamTrainer, self.trainer).callbacks.append(_ConfigKeeper(self._save_config))

    def _require_checkpoint(self) -> None:
        if self._chosen().get("ckpt_path") is None:
            raise MisconfigurationException(
                f"`{self.subcommand}` needs a trained stream, but no `ckpt_path` is given: add `--ckpt_path last`, or name"
                " a run's folder or a checkpoint file."
            )

    @rank_zero_only
    def _save_config(self, run: Path) -> None:
        config = self._chosen().clone()
        config.pop("config", None)
        config["ckpt_path"] = None
        parser = self._parser(self.subcommand)
        with whole_file(run / "config.yaml") as draft:
            parser.save(config, str(draft), skip_none=False, overwrite=True, multifile=False)
        for logger in self.trainer.loggers:
            logger.log_hyperparams(config.as_dict())

    def _chosen(self) -> Any:
        return self.config[str(self.subcommand)]

    def _config_name(self) -> str:
        files = self._chosen().get("config") or []
        return Path(str(files[0])).stem if files else "default"


def _run_command(name: str, *arguments: str) -> None:
    """Run one of the commands that stand beside the Trainer's."""
    command = import_module(f"ccd_lightning.commands.{name}")
    parser = KindParser(prog=f"train.py {name}", description=command.__doc__)
    command.add_arguments(parser)
    command.run(parser.parse_args(list(arguments)))


def main(args: list[str] | None = None) -> None:
    """Run the command line; a mistake in input or configuration ends in one message and exit code 2.

    Args:
        args: arguments in place of those of the process; `--debug` shows tracebacks.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in arguments
    keep_freed_memory()
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        if arguments and arguments[0] in COMMANDS:
            _run_command(*arguments)
        else:
            CCDCLI(arguments)
    except (MisconfigurationException, ValueError, OSError) as error:
        if debug:
            raise
        print(f"error: {message_of(error)}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from error
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning turns Ctrl-C into exit code 1.
        if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
            raise
        raise SystemExit(INTERRUPTED) from None
    except ProcessLostError as error:
        if debug:
            raise
        if not error.told:
            print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
