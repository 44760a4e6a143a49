"""Lay reports of several runs side by side in one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ccd_lightning.mistakes import meant
from ccd_lightning.reporting import write_atomically
from ccd_lightning.reporting.comparison import comparison_page
from ccd_lightning.reporting.finished import read_run


def add_arguments(parser: Any) -> None:
    """Declare the arguments.

    Args:
        parser: of the command.
    """
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, such as runs/ccd")
    parser.add_argument("--baseline", type=Path, help="the one of them over which gains are taken")
    parser.add_argument(
        "--published",
        type=Literal["yelp", "gowalla"],
        help="draw the paper's gains on this stream beside those of the runs, which need not tell that they learn it",
    )
    parser.add_argument("--output", type=Path, default=Path("comparison.html"), help="the page to write")


def run(arguments: Any) -> None:
    """Write the page.

    Args:
        arguments: parsed arguments.

    Raises:
        ValueError: if a folder is no run's, two have one name, or the baseline is not among them.
    """
    runs = {str(folder): read_run(folder) for folder in arguments.runs}
    names = [found.name for found in runs.values()]
    if len(set(names)) < len(arguments.runs):
        raise ValueError(
            f"The runs are called {', '.join(names)}, but need different names to be told apart: name each folder once, or"
            " rename one."
        )
    baseline = None if arguments.baseline is None else str(arguments.baseline)
    if baseline is not None and baseline not in runs:
        raise ValueError(
            f"The baseline {baseline} is not among the runs{meant(baseline, runs)} Name one of {', '.join(runs)}."
        )
    page = comparison_page(list(runs.values()), runs[baseline] if baseline else None, arguments.published)
    write_atomically(arguments.output, page)
    print(f"{arguments.output} compares {', '.join(names)}.")
