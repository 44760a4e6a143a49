"""How a function's result is held against expected values."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@pytest.fixture
def close(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Compares two tensors and has the summary of the test run print the case with its largest absolute difference.

    Without a tolerance the comparison is that of float32 formulas; ``0`` asks for equality.
    """

    def compare(case: str, actual: Tensor, expected: Tensor, tolerance: float | None = None) -> None:
        actual, expected = actual.detach().to(torch.float64), expected.to(torch.float64)
        assert actual.shape == expected.shape, f"{case}: {tuple(actual.shape)} against {tuple(expected.shape)}"
        difference = (actual - expected).abs().max().item() if actual.numel() else 0.0
        record_property("compared", f"{case:<32} max|diff| = {difference:.3g}")
        rtol, atol = (1e-5, 2e-6) if tolerance is None else (0.0, tolerance)
        torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, msg=lambda text: f"{case}: {text}")

    return compare


@pytest.fixture
def ragged() -> Callable[[dict[str, Tensor], str], dict[int, list[int]]]:
    """Reads a ragged ``user -> items`` mapping from the three arrays that golden vectors store it in."""

    def read(case: dict[str, Tensor], name: str) -> dict[int, list[int]]:
        lists: dict[int, list[int]] = {int(user): [] for user in case[f"{name}_keys"]}
        for user, item in zip(case[f"{name}_users"].tolist(), case[f"{name}_items"].tolist(), strict=True):
            lists[user].append(item)
        return lists

    return read
