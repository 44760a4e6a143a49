"""Programs against a ranking by a sort in numpy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from ccd_lightning.backbones import BPRMF, ItemKNN, LightGCN, MultVAE, Popularity
from ccd_lightning.export.programs import program_bytes, same_lists, scorer_of, trace, write_onnx
from ccd_lightning.modules import TeacherSystem
from tests.exports import Biased, exported, met, student

MODELS: dict[str, Callable[[], Any]] = {
    "BPRMF": lambda: met(BPRMF(4)),
    "LightGCN": lambda: met(LightGCN(4)),
    "MultVAE": lambda: met(MultVAE(4)),
    "own": lambda: met(Biased()),
    "teacher system": lambda: TeacherSystem([met(BPRMF(4)), met(Biased(), 1), met(MultVAE(3), 2)], 0.05),
    "system that counts": lambda: TeacherSystem([met(BPRMF(4)), met(ItemKNN())], 0.05),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_programs_give_the_best_items_of_the_model(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    program = trace(scorer_of(model))
    (tmp_path / "model.pt2").write_bytes(program_bytes(program))
    write_onnx(program, tmp_path / "model.onnx")
    session: Any = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    portable = torch.export.load(tmp_path / "model.pt2").module()
    random = np.random.default_rng(0)
    for users, k, excluded in ((1, 1, 0), (1, model.num_items, 3), (7, 20, 5), (30, 3, model.num_items - 1)):
        rows = random.integers(0, model.num_users, users)
        exclude = random.integers(-1, model.num_items, (users, excluded))
        with torch.no_grad():
            scores = model.scores(torch.from_numpy(rows)).numpy()
        for row, items in enumerate(exclude):
            scores[row, items[items >= 0]] = -np.inf
        best = -np.sort(-scores, axis=1)[:, :k]
        for found_items, found_scores in (
            session.run(["items", "scores"], {"users": rows, "k": np.array(k), "exclude": exclude}),
            [part.detach().numpy() for part in portable(*map(torch.from_numpy, (rows, np.array(k), exclude)))],
        ):
            np.testing.assert_allclose(found_scores, best, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(np.take_along_axis(scores, found_items, 1), best, rtol=1e-5, atol=1e-5)
            assert all(len(set(items)) == k for items in found_items.tolist())


def test_same_lists_notices_another_model() -> None:
    other = met(BPRMF(4), seed=1)
    assert same_lists(exported() / "student.onnx", scorer_of(student()), student().num_users, 20)
    assert not same_lists(exported() / "student.onnx", scorer_of(other), other.num_users, 20)


def test_factors_of_an_auto_encoder_are_its_scores() -> None:
    model = met(MultVAE(4))
    users, items, offsets = model.factors()
    with torch.no_grad():
        torch.testing.assert_close(users @ items.T + offsets, model.scores(torch.arange(model.num_users)))


def test_ties_break_in_programs_as_in_the_teacher_system(tmp_path: Path) -> None:
    system = TeacherSystem([met(Popularity()), met(ItemKNN()), met(BPRMF(4))], 0.05)
    users = torch.arange(system.num_users)
    scorer, expected = scorer_of(system), system.scores(users)
    assert expected.unique(dim=1).shape == expected.shape
    program = trace(scorer)
    write_onnx(program, tmp_path / "teacher.onnx")
    session: Any = onnxruntime.InferenceSession(tmp_path / "teacher.onnx")
    inputs = (users, torch.tensor(system.num_items), torch.empty(len(users), 0, dtype=torch.long))
    named = {name: value.numpy() for name, value in zip(("users", "k", "exclude"), inputs, strict=True)}
    torch.testing.assert_close(scorer(users), expected)
    for items, scores in (program.module()(*inputs), map(torch.from_numpy, session.run(None, named))):
        torch.testing.assert_close(torch.zeros_like(expected).scatter(1, items, scores), expected)


def nearly_tied(seed: int, rounding_seed: int) -> BPRMF:
    """Items in pairs whose scores differ by roundings alone."""
    model = met(BPRMF(4), seed)
    generator = torch.Generator().manual_seed(rounding_seed)
    with torch.no_grad():
        factors = model.item_embedding[::2].repeat_interleave(2, 0)
        model.item_embedding.copy_(factors + 1e-7 * torch.randn(factors.shape, generator=generator))
    return model


def test_same_lists_lets_fused_ranks_of_nearly_equal_scores_differ(tmp_path: Path) -> None:
    other = met(BPRMF(4), 1)
    written, rounded, wrong = (
        scorer_of(TeacherSystem([nearly_tied(*seeds), other], 0.05)) for seeds in ((0, 0), (0, 1), (2, 0))
    )
    users = torch.arange(other.num_users)
    assert not torch.allclose(written(users), rounded(users), 1e-4, 1e-4)
    write_onnx(trace(written), tmp_path / "teacher.onnx")
    assert same_lists(tmp_path / "teacher.onnx", rounded, other.num_users, 20)
    assert not same_lists(tmp_path / "teacher.onnx", wrong, other.num_users, 20)
