"""Mixed precision carries every stage of a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from ccd_lightning.backbones import BPRMF, LightGCN, MultVAE
from ccd_lightning.callbacks import DistillationCallback, GenerationSettings, GraphSettings
from ccd_lightning.data import ContinualDataModule
from ccd_lightning.modules import CollaborativeDistillation, Student, Teacher, base
from ccd_lightning.modules.evaluation import rank_block
from ccd_lightning.trainer import StreamTrainer

from .conftest import RunStream, small_source


def learned(run_stream: RunStream, folder: Path, precision: str, sample: int | None) -> CollaborativeDistillation:
    """A stream with every objective there is, and its last Recall@5 on each block."""
    teachers = [Teacher(LightGCN(8), clusters=3), Teacher(BPRMF(8)), Teacher(MultVAE(8, anneal_steps=50))]
    system = CollaborativeDistillation(Student(LightGCN(4)), teachers, ks=(5,))
    callback = DistillationCallback(
        GenerationSettings(sample=sample, propagated=sample is None), graph=GraphSettings(weight=1.0, sample=sample)
    )
    trainer, _ = run_stream(
        folder, system, small_source(blocks=2), distillation=callback, precision=precision, max_epochs=4
    )
    return trainer, system


@pytest.mark.parametrize("sample", [None, 20])
def test_bf16_learns_a_stream_as_full_precision_does(tmp_path, run_stream, sample):
    found = {name: learned(run_stream, tmp_path / name, name, sample) for name in ("bf16-mixed", "32-true")}
    metrics = {name: trainer.record.summary() for name, (trainer, _) in found.items()}
    for role in ("teacher", "student", "distilled"):
        rows = [torch.tensor(values[role]["recall@5"]["A"][-1]) for values in metrics.values()]
        torch.testing.assert_close(rows[0], rows[1], rtol=0, atol=0.1, msg=lambda text, role=role: f"{role}: {text}")
    for name, parameter in found["bf16-mixed"][1].named_parameters():
        assert parameter.dtype == torch.float32 and bool(parameter.isfinite().all()), name


class Heard(Callback):
    """What is predicted."""

    def __init__(self) -> None:
        self.scores: list[torch.Tensor] = []

    def on_predict_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.scores.append(outputs)


def test_scores_to_rank_by_are_in_full_precision(tmp_path, run_stream, monkeypatch):
    types = set()

    def ranked(scores: torch.Tensor, *others: Any) -> Any:
        types.add(scores.dtype)
        return rank_block(scores, *others)

    monkeypatch.setattr(base, "rank_block", ranked)
    _, system = learned(run_stream, tmp_path, "bf16-mixed", 20)
    assert types == {torch.float32}
    found = []
    for precision in ("bf16-mixed", "32-true"):
        heard, stream = Heard(), ContinualDataModule(small_source(blocks=2))
        trainer = StreamTrainer(
            precision=precision,
            callbacks=[heard],
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            default_root_dir=tmp_path,
        )
        metrics = trainer.test(system, datamodule=stream, ckpt_path=str(tmp_path), verbose=False)
        trainer.predict(system, datamodule=stream, ckpt_path=str(tmp_path))
        found.append((metrics, torch.cat(heard.scores)))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
