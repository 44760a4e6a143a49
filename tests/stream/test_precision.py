"""Mixed precision carries every stage of a stream."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ccd_lightning.backbones import BPRMF, LightGCN, MultVAE
from ccd_lightning.callbacks import DistillationCallback, GenerationSettings, GraphSettings
from ccd_lightning.modules import CollaborativeDistillation, Student, Teacher

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
