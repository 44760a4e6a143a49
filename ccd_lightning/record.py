"""What a stream has achieved so far, and what it cost."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from typing import Any

from ccd_lightning.metrics import PerformanceMatrix
from ccd_lightning.modules import GROUPS
from ccd_lightning.types import Stage, StageKind

ROLES = ("teacher", "student", "distilled")
"""Who is measured: the fused teacher system, the student after its update, and the student after its distillation."""

OVERLAP = 20
"""Places of the rankings of teacher system and student that are laid over each other after a block."""

Results = dict[int, dict[str, dict[str, float]]]
"""Block -> group -> metric -> value."""


class StreamRecord:
    """Performance matrices of every role and group, seconds of every stage, and peak memory."""

    def __init__(self) -> None:
        self.matrices = {role: {group: PerformanceMatrix() for group in GROUPS} for role in ROLES}
        self.valid = {role: PerformanceMatrix() for role in ROLES}
        self.users: dict[str, list[list[dict[str, int]]]] = {role: [] for role in ROLES}
        self.seconds: dict[str, list[float]] = {}
        self.stages: list[dict[str, Any]] = []
        self.replayed: dict[str, dict[str, int]] = {}
        self.overlap: list[float | None] = []
        self.events: list[dict[str, str]] = []
        self.peak_bytes = 0

    def add(self, role: str, block: int, results: Results, valid: Results | None = None) -> None:
        """Append a role's row after ``block``; results on the block ahead become forward transfer.

        Args:
            role: who was measured.
            block: k.
            results: on the test splits of D_0, ..., D_k and perhaps of the next block.
            valid: the same on the validation splits, by which settings may be chosen.
        """
        if valid is not None:
            self.valid[role].append(block, [_only_metrics(valid[j]["all"]) for j in range(block + 1)])
        ahead = results.get(block + 1)
        for group, matrix in self.matrices[role].items():
            rows = [_only_metrics(results[j][group]) for j in range(block + 1)]
            matrix.append(block, rows, None if ahead is None else _only_metrics(ahead[group]))
        counts = [{name: int(results[j]["all"][name]) for name in ("users", "unknown_users")} for j in range(block + 1)]
        self.users[role][block:] = [counts]

    def has(self, role: str, block: int) -> bool:
        """Whether a role was measured after ``block``."""
        return len(self.users[role]) > block

    def student_role(self) -> str:
        """The role that the student plays as it stands: ``distilled`` if it was distilled last, otherwise ``student``."""
        kinds = [stage["kind"] for stage in self.stages if stage["teacher"] is None]
        return "distilled" if kinds and kinds[-1] == StageKind.DISTILLATION.value else "student"

    def add_overlap(self, block: int, share: float) -> None:
        """Note how much of the teacher system's top places the student has too, as both stand after a block.

        Args:
            block: k; blocks before it that were never measured have ``None``.
            share: from 0 to 1.
        """
        self.overlap.extend([None] * (block - len(self.overlap)))
        self.overlap[block:] = [share]

    def note(self, what: str, where: str) -> None:
        """Note that something did not go straight on.

        Args:
            what: ``resumed``, ``continued`` (a finished stream got new blocks) or ``unreadable``.
            where: the stage behind which the stream went on, or the file that could not be read.
        """
        self.events.append({"what": what, "where": where})

    def add_seconds(
        self, stage: Stage, seconds: float, epochs: int = 0, max_epochs: int = 0, recalls: Sequence[float] = ()
    ) -> None:
        """Count a stage's time under its kind and block; kinds that a block leaves out have 0 seconds there.

        Args:
            stage: what is over.
            seconds: how long it took.
            epochs: how many it had.
            max_epochs: how many it might have had.
            recalls: validation Recall@20 at each of its evaluations.
        """
        found = {"block": stage.block, "kind": stage.kind.value, "teacher": stage.teacher}
        course = {"epochs": epochs, "max_epochs": max_epochs, "recalls": list(recalls)}
        self.stages.append({"name": stage.name, **found, **course, "seconds": seconds})
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
            "valid": {role: _without_transfer(self.valid[role].summary()) for role in ROLES},
            "users": self.users,
            "seconds": self.seconds,
            "replayed": self.replayed,
            "overlap": {f"top@{OVERLAP}": self.overlap},
            "peak_bytes": self.peak_bytes,
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain lists and numbers."""
        matrices = {
            role: {group: matrix.state_dict() for group, matrix in of.items()} for role, of in self.matrices.items()
        }
        names = ("users", "seconds", "stages", "replayed", "overlap", "events", "peak_bytes")
        valid = {role: matrix.state_dict() for role, matrix in self.valid.items()}
        return {"matrices": matrices, "valid": valid, **{name: getattr(self, name) for name in names}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        for role, groups in state["matrices"].items():
            for group, rows in groups.items():
                self.matrices[role][group].load_state_dict(rows)
        for role, rows in state.get("valid", {}).items():
            self.valid[role].load_state_dict(rows)
        for name in ("users", "seconds", "replayed", "peak_bytes"):
            setattr(self, name, state[name])
        for name in ("stages", "overlap", "events"):
            setattr(self, name, list(state.get(name, [])))


def _only_metrics(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if "@" in name}


def _without_transfer(summary: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The next block is not asked on validation splits."""
    return {
        metric: {name: values for name, values in found.items() if name != "forward_transfer"}
        for metric, found in summary.items()
    }


def peak_resident_bytes() -> int:
    """The process's largest resident size so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
