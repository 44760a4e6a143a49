"""What the cases found, as a table on the screen and in a file."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.cases import Seconds
from ccd_lightning.checkpoint import whole_file

HEAD = ("case", "baseline", "baseline s", "ours s", "ratio", "least s", "aim s", "note")


@dataclass
class Findings:
    """The rows of one run of the benchmarks.

    Args:
        source: the data, in words.
        rows: case -> what was found, or why it was skipped.
    """

    source: str
    rows: dict[str, Seconds | str]

    def cells(self) -> list[tuple[str, ...]]:
        """The table's rows as text, in the order of :data:`HEAD`."""
        return [(name, *_cells(found)) for name, found in self.rows.items()]

    def show(self) -> None:
        """Print the table."""
        table = Table(*HEAD, title=f"{self.source}, {machine()}")
        for row in self.cells():
            table.add_row(*row)
        Console(width=160).print(table)

    def write(self, path: Path) -> None:
        """Write the table as JSON, or as Markdown if the name says so.

        Args:
            path: the file.
        """
        with whole_file(path) as draft:
            draft.write_text(self._markdown() if path.suffix == ".md" else self._json())

    def _markdown(self) -> str:
        lines = [HEAD, ("---",) * len(HEAD), *self.cells()]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"`python -m benchmarks`, {self.source}; {machine()}; {_today()}.\n\n{table}\n"

    def _json(self) -> str:
        rows = {
            name: {"skipped": found} if isinstance(found, str) else found._asdict() for name, found in self.rows.items()
        }
        about = {"machine": machine(), "date": _today(), "source": self.source}
        return json.dumps({**about, "cases": rows}, indent=2) + "\n"


def _cells(found: Seconds | str) -> tuple[str, ...]:
    if isinstance(found, str):
        return ("", "", "", "", "", "", f"skipped: {found}")
    least = "" if found.least is None else f"{found.least:.4f}"
    aim = "" if found.target is None else f"{found.target:g}"
    return (
        found.against,
        "" if found.baseline is None else f"{found.baseline:.4f}",
        f"{found.ours:.4f}",
        "" if found.baseline is None else f"{found.ours / found.baseline:.3f}",
        least,
        aim,
        found.note,
    )


def machine() -> str:
    """Words for the machine that measures."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{torch.get_num_threads()} threads on {os.cpu_count()} cores of {_processor()}{load}, torch {torch.__version__}"


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        names = [line.split(":", 1)[1].strip() for line in described.read_text().splitlines() if "model name" in line]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def _today() -> str:
    return datetime.now(timezone.utc).date().isoformat()
