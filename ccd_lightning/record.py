"""What a stream has achieved so far, and what it cost."""

from __future__ import annotations

import resource
import sys
from typing import Any

from ccd_lightning.metrics import PerformanceMatrix
from ccd_lightning.modules import GROUPS
from ccd_lightning.types import Stage, StageKind

ROLES = ("teacher", "student", "distilled")
"""Who is measured: the fused teacher system, the student after its update, and the student after its distillation."""

MEASURED = {
    StageKind.BASE: ("teacher",),
    StageKind.TEACHER_UPDATE: ("teacher",),
    StageKind.STUDENT_UPDATE: ("student",),
    StageKind.DISTILLATION: ("distilled",),
}
"""Who is measured on all blocks so far when the last stage of a kind ends."""

Results = dict[int, dict[str, dict[str, float]]]
"""Block -> group -> metric -> value."""


class StreamRecord:
    """Performance matrices of every role and group, seconds of every stage, and peak memory."""

    def __init__(self) -> None:
        self.matrices = {role: {group: PerformanceMatrix() for group in GROUPS} for role in ROLES}
        self.users: dict[str, list[list[dict[str, int]]]] = {role: [] for role in ROLES}
        self.seconds: dict[str, list[float]] = {}
        self.stages: list[dict[str, Any]] = []
        self.replayed: dict[str, dict[str, int]] = {}
        self.peak_bytes = 0

    def add(self, role: str, block: int, results: Results) -> None:
        """Append a role's row after ``block``; results on the block ahead become forward transfer."""
        ahead = results.get(block + 1)
        for group, matrix in self.matrices[role].items():
            rows = [_only_metrics(results[j][group]) for j in range(block + 1)]
            matrix.append(block, rows, None if ahead is None else _only_metrics(ahead[group]))
        counts = [{name: int(results[j]["all"][name]) for name in ("users", "unknown_users")} for j in range(block + 1)]
        self.users[role][block:] = [counts]

    def has(self, role: str, block: int) -> bool:
        """Whether a role was measured after ``block``."""
        return len(self.users[role]) > block

    def add_seconds(self, stage: Stage, seconds: float, epochs: int = 0) -> None:
        """Count a stage's time under its kind and block; kinds that a block leaves out have 0 seconds there."""
        found = {"block": stage.block, "kind": stage.kind.value, "teacher": stage.teacher}
        self.stages.append({"name": stage.name, **found, "epochs": epochs, "seconds": seconds})
        spent = self.seconds.setdefault(stage.kind.value, [])
        spent.extend([0.0] * (stage.block + 1 - len(spent)))
        spent[stage.block] += seconds
        self.peak_bytes = max(self.peak_bytes, peak_resident_bytes())

    def summary(self) -> dict[str, Any]:
        """The content of ``metrics.json``."""
        everybody = {role: self.matrices[role]["all"].summary() for role in ROLES}
        groups = {group: {role: self.matrices[role][group].summary() for role in ROLES} for group in GROUPS[1:]}
        return {
            **everybody,
            **groups,
            "users": self.users,
            "seconds": self.seconds,
            "replayed": self.replayed,
            "peak_bytes": self.peak_bytes,
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain lists and numbers."""
        matrices = {
            role: {group: matrix.state_dict() for group, matrix in of.items()} for role, of in self.matrices.items()
        }
        names = ("users", "seconds", "stages", "replayed", "peak_bytes")
        return {"matrices": matrices, **{name: getattr(self, name) for name in names}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        for role, groups in state["matrices"].items():
            for group, rows in groups.items():
                self.matrices[role][group].load_state_dict(rows)
        for name in ("users", "seconds", "replayed", "peak_bytes"):
            setattr(self, name, state[name])
        self.stages = list(state.get("stages", []))


def _only_metrics(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if "@" in name}


def peak_resident_bytes() -> int:
    """The process's largest resident size so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
