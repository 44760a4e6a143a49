"""Run methods with several seeds, and compare them.

Each run has a folder of its own.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Any

from ccd_lightning.studies import Method, Study, carry_out, write_report


def add_arguments(parser: Any) -> None:
    """The settings of a study, from a file or one by one.

    Args:
        parser: of the command.
    """
    parser.add_argument("--config", action="config", help="a study, such as configs/studies/quick.yaml")
    parser.add_class_arguments(Study, as_group=False)
    parser.add_argument("--collect", type=bool, default=False, help="only write what is finished, run nothing")


def study_of(arguments: Any) -> Study:
    """The study that parsed arguments describe.

    Args:
        arguments: of a parser with :func:`add_arguments`.
    """
    settings = {field.name: getattr(arguments, field.name) for field in fields(Study)}
    settings["methods"] = {name: Method(**vars(method)) for name, method in (settings["methods"] or {}).items()}
    return Study(**settings)


def run(arguments: Any) -> None:
    """Carry out the study, then write its tables; ends with code 1 if a run has failed.

    Args:
        arguments: parsed settings.
    """
    study = study_of(arguments)
    failed = {} if arguments.collect else carry_out(study)
    write_report(study, failed)
    print(f"{study.folder / 'results.md'} holds the tables.")
    if failed:
        print("\n".join(f"{name} failed: {message}" for name, message in failed.items()), file=sys.stderr)
        raise SystemExit(1)
