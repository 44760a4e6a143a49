"""Which weight of the graph distillation moves a teacher: `python -m benchmarks.graph_weights`.

One small teacher learns D_0 once, and then D_1 and D_2 for each weight, without replay.
"""

from __future__ import annotations

import argparse
import time
from copy import deepcopy
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import YELP
from benchmarks.evaluation import recalls
from benchmarks.table import machine
from ccd_lightning import functional as F
from ccd_lightning.backbones import BPRMF, EmbeddingBackbone, LightGCN
from ccd_lightning.data import BlockTable, ContinualDataModule
from ccd_lightning.modules import Teacher
from ccd_lightning.objectives import GraphDistillation, OldKnowledge
from ccd_lightning.types import Split, Stage, StageKind, StageSettings

DIM, SEED, LAST_BLOCK = 32, 0, 2


def main() -> None:
    """Print LA, RA and H-mean of test Recall@20 after D_2 for each weight."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=YELP, help="a block table")
    parser.add_argument("--backbone", default="BPRMF", choices=["BPRMF", "LightGCN"])
    parser.add_argument("--weights", nargs="*", type=float, default=[0.0, 0.01, 1.0, 10.0, 100.0, 1000.0])
    parser.add_argument("--clusters", type=int, default=0, help="clusters of the personal imitation weights")
    parser.add_argument("--sample", type=int, default=1024, help="candidates drawn in each step")
    parser.add_argument("--epochs", nargs=2, type=int, default=[30, 10], help="on D_0, on each later block")
    chosen = parser.parse_args()
    stream = ContinualDataModule(BlockTable(str(chosen.data)))
    table = Table("weight", "A[2]", "LA", "RA", "H-mean", "CPU s", title=f"{chosen.backbone} {DIM}, {machine()}")
    start = Teacher({"BPRMF": BPRMF, "LightGCN": LightGCN}[chosen.backbone](DIM), clusters=chosen.clusters)
    matrix = [_learn(start, stream, 0, chosen.epochs[0], 0.005)]
    for weight in chosen.weights:
        began, teacher, rows = time.process_time(), deepcopy(start), list(matrix)
        for block in range(1, LAST_BLOCK + 1):
            rows.append(_learn(teacher, stream, block, chosen.epochs[1], 0.001, weight, chosen.sample))
        found = [float(mean(rows)[-1]) for mean in (F.learning_average, F.retained_average)]
        found.append(2 * found[0] * found[1] / sum(found))
        words = [" ".join(f"{value:.4f}" for value in rows[-1]), *(f"{value:.4f}" for value in found)]
        table.add_row(f"{weight:g}", *words, f"{time.process_time() - began:.0f}")
    Console(width=120).print(table)


def _learn(
    teacher: Teacher,
    stream: ContinualDataModule,
    block: int,
    epochs: int,
    rate: float,
    weight: float = 0.0,
    sample: int | None = None,
) -> list[float]:
    """Train on a block and measure on all the blocks so far."""
    backbone = teacher.backbone
    assert isinstance(backbone, EmbeddingBackbone)
    if weight:
        old = OldKnowledge.of(backbone, stream.history(backbone.known_block))
        teacher.objectives.append(GraphDistillation(old, weight, teacher.personal, sample=sample))
    settings = StageSettings(learning_rate=rate, batch_size=2048, negatives=2)
    teacher.begin_stage(Stage(block, StageKind.TEACHER_UPDATE, 0), settings, stream.history(block), SEED, 0)
    optimizer = teacher.configure_optimizers()
    for epoch in range(epochs):
        teacher.first_epoch = -epoch
        for batches in teacher.epoch_batches():
            for index, batch in enumerate(batches):
                optimizer.zero_grad()
                teacher.training_step(batch, index).backward()
                optimizer.step()
    teacher.end_stage()
    return recalls(backbone, stream, block, Split.TEST)


if __name__ == "__main__":
    main()
