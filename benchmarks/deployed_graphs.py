"""Over which edges a distilled student should be deployed: `python -m benchmarks.deployed_graphs RUN`.

Takes the students that a finished run has deployed, LightGCN on block graphs, from its checkpoints, and measures them over
the edges of all blocks, fading by their age. Nothing is learned, and nothing is written.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.__main__ import YELP
from benchmarks.evaluation import recalls
from ccd_lightning import functional as F
from ccd_lightning.backbones import LightGCN
from ccd_lightning.checkpoint import read_checkpoint
from ccd_lightning.data import BlockTable, ContinualDataModule
from ccd_lightning.types import Split

_STUDENT = "student.backbone."


def main() -> None:
    """Print Recall@20 on the validation and test splits, as LA and RA at the end and the H-mean after each block."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--data", type=Path, default=YELP, help="the block table that it learned")
    parser.add_argument("--decays", nargs="*", type=float, default=[0.1, 0.2, 0.3, 0.4])
    chosen = parser.parse_args()
    stream = ContinualDataModule(BlockTable(str(chosen.data)))
    states = deployed_states(chosen.run)
    after = [f"after D_{block}" for block in range(1, len(states) + 1)]
    table = Table("edge_decay", "split", "LA", "RA", *after, title=f"H-mean of Recall@20, {chosen.run.name}")
    for decay in (None, *chosen.decays):
        for split in (Split.VALID, Split.TEST):
            rows = [first_recall(chosen.run, split)]
            rows += [recalls(deployed(state, stream, block, decay), stream, block, split) for block, state in states]
            learned, retained = F.learning_average(rows), F.retained_average(rows)
            means = F.h_mean(learned, retained)[1:]
            words = [f"{float(value):.4f}" for value in (learned[-1], retained[-1], *means)]
            table.add_row("block graph" if decay is None else f"{decay:g}", split.value, *words)
    Console(width=120).print(table)


def deployed_states(run: Path) -> list[tuple[int, dict[str, Tensor]]]:
    """Block and student of the last checkpoints of D_1, D_2, ..."""
    found: dict[int, Path] = {}
    for path in sorted((run / "checkpoints").glob("*-distillation.ckpt")):
        name = re.search(r"block(\d+)-distillation", path.name)
        if name is not None and int(name[1]):
            found[int(name[1])] = path
    if sorted(found) != list(range(1, len(found) + 1)) or not found:
        raise SystemExit(
            f"Found checkpoints of the distillations of the blocks {sorted(found)} in {run}, expected all from 1 on."
        )
    return [(block, read_checkpoint(path)["system"]) for block, path in sorted(found.items())]


def deployed(state: dict[str, Tensor], stream: ContinualDataModule, block: int, decay: float | None) -> LightGCN:
    """The student of a checkpoint over its block's graph, or over that of all blocks."""
    tables = {name.removeprefix(_STUDENT): value for name, value in state.items() if name.startswith(_STUDENT)}
    student = LightGCN(tables["user_embedding"].shape[1], graph="block", deployed_decay=decay)
    student.load_state_dict(tables)
    student.observe(stream.history(block))
    student.settle(True)
    return student


def first_recall(run: Path, split: Split) -> list[float]:
    """The student's recall on D_0 after D_0, where there is but one graph; its checkpoint may lie in another run."""
    metrics = json.loads((run / "metrics.json").read_text())
    roles = metrics if split is Split.TEST else metrics["valid"]
    recall: list[float] = roles["distilled" if "distilled" in roles else "student"]["recall@20"]["A"][0]
    return recall


if __name__ == "__main__":
    with torch.no_grad():
        main()
