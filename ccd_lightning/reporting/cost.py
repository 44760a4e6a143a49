"""What a model costs to hold and to ask."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ccd_lightning.backbones import Backbone

USERS = 256
"""Users that are scored at a time when latency is measured."""


@torch.no_grad()
def median_latency(scores: Callable[[Tensor], Tensor], users: Tensor, runs: int = 5) -> float:
    """Milliseconds to score the whole catalogue for a batch of users, the median of several runs after one to warm up.

    Args:
        scores: from int64 ``(B,)`` to float ``(B, I)``.
        users: int64 ``(B,)``.
        runs: measured runs.
    """
    scores(users)
    spent = []
    for _ in range(runs):
        _wait(users.device)
        started = time.perf_counter()
        scores(users)
        _wait(users.device)
        spent.append(time.perf_counter() - started)
    return statistics.median(spent) * 1e3


def model_cost(
    members: Sequence[Backbone], scores: Callable[[Tensor], Tensor], device: torch.device
) -> dict[str, float | int]:
    """Parameters, their bytes in 32 bits each, and the measured latency for :data:`USERS` users.

    Args:
        members: the backbones that the model consists of; they score in evaluation mode and keep the mode they had.
        scores: how the model scores users.
        device: where it is asked.
    """
    parameters = sum(parameter.numel() for member in members for parameter in member.parameters())
    users = torch.arange(min(USERS, *(member.num_users for member in members)), device=device)
    modes = [member.training for member in members]
    for member in members:
        member.eval()
    try:
        latency = median_latency(scores, users)
    finally:
        for member, mode in zip(members, modes, strict=True):
            member.train(mode)
    return {"parameters": parameters, "bytes": parameters * 4, "latency_ms": latency, "latency_users": users.numel()}


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
