"""What may be saved, against what torch reads again."""

from __future__ import annotations

import io
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from ccd_lightning.readable import check_readable


class Named(Tensor):
    """A tensor of another class."""


def tensor_with(attribute: Any) -> Tensor:
    found = torch.zeros(2)
    found.note = attribute  # type: ignore[attr-defined]
    return found


STATES: list[Any] = [
    *(None, True, 3, 0.5, 2j, "word", b"bytes", bytearray(b"more"), (1, [2, {3}])),
    *(torch.zeros(2), nn.Parameter(torch.ones(2)), torch.Size([2]), torch.float64, torch.device("cpu"), torch.strided),
    *({"a": {1: [torch.zeros(1)]}}, OrderedDict(a=1), Counter("aab"), tensor_with("word")),
    *(b"", np.float64(0.5), np.zeros(2), Path("a"), {Path("a"): 1}, [{"deep": (Path("a"),)}], range(3), frozenset({1})),
    *(torch.zeros(2).as_subclass(Named), tensor_with(Path("a")), slice(1), len, object),
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: type(state).__name__)
def test_what_is_admitted_is_what_can_be_read_again(state: Any) -> None:
    file = io.BytesIO()
    torch.save({"state": state}, file)
    file.seek(0)
    try:
        torch.load(file, weights_only=True)
        can_be_read = True
    except Exception:
        can_be_read = False
    try:
        check_readable("it", state)
        is_admitted = True
    except MisconfigurationException:
        is_admitted = False
    assert is_admitted == can_be_read
