"""Performance over the stream: the matrix A and what is read off it."""

from __future__ import annotations

from typing import Any

import torch

from ccd_lightning import functional as F


class PerformanceMatrix:
    """A[k][j]: a metric on D_j after block k, for every metric of one model.

    Rows are appended block by block; row k has k+1 entries.

    >>> matrix = PerformanceMatrix()
    >>> matrix.append(0, [{"recall@20": 0.2}])
    >>> matrix.append(1, [{"recall@20": 0.1}, {"recall@20": 0.3}])
    >>> matrix.summary()["recall@20"]["LA"]
    [0.2, 0.25]
    """

    def __init__(self) -> None:
        self.rows: dict[str, list[list[float]]] = {}
        self.ahead: dict[str, list[float | None]] = {}

    def append(self, block: int, values: list[dict[str, float]], ahead: dict[str, float] | None = None) -> None:
        """Set row ``block``.

        Args:
            block: k, the number of rows so far or a row that is measured again.
            values: the metrics on D_0, ..., D_k.
            ahead: the metrics on D_{k+1}, not learned yet, where it is at hand: forward transfer.

        Raises:
            ValueError: if the row does not fit below the rows so far.
        """
        if len(values) != block + 1:
            raise ValueError(
                f"Row {block} of a performance matrix needs {block + 1} entries, but got {len(values)}: one a block."
            )
        for name in values[0]:
            rows = self.rows.setdefault(name, [])
            if len(rows) < block:
                raise ValueError(
                    f"Row {block} was given, but only {len(rows)} rows stand: measure the blocks in order."
                )
            rows[block:] = [[float(value[name]) for value in values]]
            self.ahead.setdefault(name, [])[block:] = [None if ahead is None else float(ahead[name])]

    def summary(self) -> dict[str, dict[str, Any]]:
        """For each metric A, and after each block LA, RA, their harmonic mean H, forgetting, and transfer both ways.

        Forward transfer after block k is the metric on D_{k+1} before it is learned, null where no block follows.
        """
        return {name: {**_summary_of(rows), "forward_transfer": self.ahead[name]} for name, rows in self.rows.items()}

    def state_dict(self) -> dict[str, Any]:
        """The rows, in full precision."""
        return {"rows": self.rows, "ahead": self.ahead}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.rows = {name: [list(row) for row in rows] for name, rows in state["rows"].items()}
        self.ahead = {name: list(values) for name, values in state["ahead"].items()}


def _summary_of(rows: list[list[float]]) -> dict[str, Any]:
    learned, retained = F.learning_average(rows), F.retained_average(rows)
    curves: dict[str, torch.Tensor] = {
        "LA": learned,
        "RA": retained,
        "H": torch.as_tensor(F.h_mean(learned, retained)),
        "forgetting": F.forgetting(rows),
        "backward_transfer": F.backward_transfer(rows),
    }
    return {"A": rows, **{name: curve.tolist() for name, curve in curves.items()}}
