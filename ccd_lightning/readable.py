"""What a file may hold that is read with ``weights_only=True``: tensors and plain values, and nothing that could be executed."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

_PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    bytearray,
    torch.Size,
    torch.dtype,
    torch.device,
    torch.layout,
)


def check_readable(owner: str, state: Any) -> None:
    """Make sure that what is about to be saved can be read again, where nothing but tensors and plain values is.

    Args:
        owner: whose state it is.
        state: what is to be saved.

    Raises:
        MisconfigurationException: if it holds anything else.
    """
    foreign = _foreign(state)
    if foreign is not None:
        raise MisconfigurationException(
            f"`state_dict()` of {owner} could not be read from a checkpoint again (it holds a {foreign}): return tensors,"
            " numbers, words, lists and dictionaries of them."
        )


def _foreign(value: Any) -> str | None:
    """The first type within a value that a checkpoint cannot hold; numpy's numbers are floats, but not read as such."""
    kind = type(value)
    parts: Iterable[Any] = ()
    if kind in (dict, OrderedDict, Counter):
        parts = (*value.keys(), *value.values())
    elif kind in (list, tuple, set):
        parts = value
    elif kind in (Tensor, nn.Parameter):
        # What else hangs on a tensor is saved with it.
        parts = tuple(vars(value).values())
    elif kind is bytes and not value:
        return "bytes object of no bytes"
    elif kind not in _PLAIN and kind not in torch.serialization.get_safe_globals():
        return f"{kind.__module__}.{kind.__qualname__}"
    return next((found for found in map(_foreign, parts) if found is not None), None)
