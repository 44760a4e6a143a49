"""Seconds of a training epoch of RecBole (Zhao et al., CIKM 2021) beside ours, on the train rows of D_0.

RecBole is no dependency: install `"recbole==1.2.1" "numpy<2" "pandas<3"` into an environment of its own and name its interpreter,
`python -m benchmarks.recbole --python PATH/bin/python`. The same rows, model sizes, batches of 2048 and one negative; Adam
on both sides; each runs in its own Trainer. One thread: set OMP_NUM_THREADS to change it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.measuring import machine, quiet_lightning
from benchmarks.overhead import YELP, fitted_epochs, quiet_trainer
from ccd_lightning.backbones import BPRMF, Backbone, LightGCN
from ccd_lightning.data import BlockTable, ContinualDataModule
from ccd_lightning.memory import keep_freed_memory
from ccd_lightning.modules import Teacher
from ccd_lightning.types import Interactions, Split, Stage, StageKind, StageSettings

SIDE = Path(__file__).with_name("recbole_side.py")


class Pair(NamedTuple):
    """One model in both libraries."""

    name: str
    theirs: str
    dimensions: int

    def ours(self) -> Backbone:
        """Our backbone."""
        return LightGCN(self.dimensions) if self.theirs == "LightGCN" else BPRMF(self.dimensions)


PAIRS = (
    Pair("LightGCN, 2 layers, 128 dimensions", "LightGCN", 128),
    Pair("LightGCN, 2 layers, 8 dimensions", "LightGCN", 8),
    Pair("BPR-MF, 64 dimensions", "BPR", 64),
)


def main() -> None:
    """Print a Markdown table with one row a pair."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="interpreter that has RecBole")
    parser.add_argument("--data", type=Path, default=YELP, help="a block table")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of a round; the first is a warm-up")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of both libraries in turn")
    chosen = parser.parse_args()
    quiet_lightning()
    keep_freed_memory()
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))
    stream = ContinualDataModule(BlockTable(chosen.data))
    rows = stream.blocks[0].train.size
    lines = [
        f"{rows:,} train rows of D_0, batches of 2048, one negative, {machine()}, {datetime.date.today()}.",
        "Median processor seconds of an epoch.",
        "",
        "| model | RecBole s | ours s | ours / RecBole |",
        "| --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_atomic_files(stream, Path(folder) / "pair")
        for pair in PAIRS:
            theirs, ours = [], []
            for _ in range(chosen.rounds):
                theirs += recbole_epochs(chosen.python, folder, pair, chosen.epochs, rows)[1:]
                ours += own_epochs(stream, pair, chosen.epochs, folder)[1:]
            seconds = statistics.median(theirs), statistics.median(ours)
            lines.append(f"| {pair.name} | {seconds[0]:.3f} | {seconds[1]:.3f} | {seconds[1] / seconds[0]:.2f} |")
    print("\n".join(lines))


def write_atomic_files(stream: ContinualDataModule, folder: Path) -> None:
    """The splits of D_0 as RecBole reads them."""
    folder.mkdir()
    for split in Split:
        pairs: Interactions = stream.blocks[0].split(split)
        rows = "\n".join(f"{user}\t{item}" for user, item in zip(*(ids.tolist() for ids in pairs), strict=True))
        (folder / f"pair.{split.value}.inter").write_text(f"user_id:token\titem_id:token\n{rows}\n")


def recbole_epochs(python: Path, folder: str, pair: Pair, epochs: int, rows: int) -> list[float]:
    """Processor seconds of RecBole's epochs.

    Raises:
        SystemExit: if the interpreter cannot run RecBole.
        ValueError: if RecBole trained on other rows than we do.
    """
    command = [str(python), str(SIDE), folder, pair.theirs, str(pair.dimensions), str(epochs)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise SystemExit(
            f"{python} could not run RecBole 1.2.1; name an interpreter with `--python`.\n{done.stderr[-2000:]}"
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if found["rows"] != rows:
        raise ValueError(f"RecBole trained on {found['rows']} rows, but D_0 has {rows}: the pair would not be fair.")
    return list(found["seconds"])


def own_epochs(stream: ContinualDataModule, pair: Pair, epochs: int, folder: str) -> list[float]:
    """Processor seconds of our epochs."""
    settings = StageSettings(learning_rate=0.001, batch_size=2048, negatives=1, evaluate_every=0)
    teacher = Teacher(pair.ours())
    teacher.begin_stage(Stage(0, StageKind.BASE, 0), settings, stream.history(0), 0, 0)
    return fitted_epochs(quiet_trainer(folder), teacher, stream, epochs)


if __name__ == "__main__":
    main()
