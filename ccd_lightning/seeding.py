"""Random numbers that depend on what they are for, never on what ran before."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

# Increment and multipliers of SplitMix64 as signed numbers, since torch has no uint64 arithmetic.
_INCREMENT = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIERS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))


def seeded_generator(*purpose: int | str) -> torch.Generator:
    """A CPU generator seeded from its purpose alone, such as ``(seed, block, stage, epoch)``.

    One process and many, a run and its resumption, a CPU and a GPU thus draw the same numbers.

    >>> first, second = seeded_generator(0, "negatives", 3), seeded_generator(0, "negatives", 3)
    >>> bool(torch.rand(1, generator=first) == torch.rand(1, generator=second))
    True
    """
    return torch.Generator().manual_seed(_seed(purpose))


def keyed_normal(keys: Tensor, width: int, *purpose: int | str) -> Tensor:
    """Standard normal numbers that depend on the purpose and each row's key, so a batch may be cut in any way.

    Element (b, c) comes from the number ``keys[b] * width + c`` of a SplitMix64 stream (Steele et al., OOPSLA 2014) by
    the transform of Box and Muller.

    Args:
        keys: not negative, int64 ``(B,)``.
        width: numbers a row.
        purpose: as in :func:`seeded_generator`.

    Returns:
        Float32 ``(B, width)`` on the device of ``keys``.

    >>> whole, part = keyed_normal(torch.arange(4), 3, 0, "noise"), keyed_normal(torch.tensor([2]), 3, 0, "noise")
    >>> bool((whole[2] == part[0]).all())
    True
    """
    place = keys[:, None] * width + torch.arange(1, width + 1, device=keys.device)
    bits = place * _INCREMENT + _seed(purpose)
    for shift, multiplier in _MULTIPLIERS:
        bits = (bits ^ _shifted(bits, shift)) * multiplier
    bits = bits ^ _shifted(bits, 31)
    radius = (-2 * ((_shifted(bits, 40) + 1) * 2.0**-24).log()).sqrt()
    normal: Tensor = radius * ((bits & (2**24 - 1)) * (math.tau * 2.0**-24)).cos()
    return normal


def _seed(purpose: tuple[int | str, ...]) -> int:
    digest = hashlib.blake2b(repr(purpose).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _shifted(bits: Tensor, places: int) -> Tensor:
    """Shift to the right that fills up with zeros, as of an unsigned number."""
    shifted: Tensor = (bits >> places) & (2 ** (64 - places) - 1)
    return shifted
