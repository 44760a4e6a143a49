"""Lightning's own words, made for one fit, would repeat themselves at each stage of a stream."""

from __future__ import annotations

import logging
import warnings
from types import TracebackType

LOGGERS = ("lightning.pytorch", "lightning.fabric")
REPEATED = (
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    r"It is recommended to use `self\.log\(.*sync_dist=True\)` when logging on epoch level",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)
"""Warnings about what a stream does on purpose (metrics are summed over processes already), or about Lightning's own use
of torch."""


class QuietLightning:
    """Holds back Lightning's messages below the level of a warning, and warnings that do not concern streams.

    Warnings in general still appear. Use it as a context, or by :meth:`start` and :meth:`stop`.
    """

    def __init__(self) -> None:
        self._levels: dict[str, int] = {}
        self._filters: list[tuple[object, ...]] = []

    def start(self) -> None:
        """Hold messages back; a second call changes nothing."""
        if self._levels:
            return
        for name in LOGGERS:
            logger = logging.getLogger(name)
            self._levels[name] = logger.level
            logger.setLevel(max(logger.level, logging.WARNING))
        before = list(warnings.filters)
        for message in REPEATED:
            warnings.filterwarnings("ignore", message=message)
        self._filters = [entry for entry in warnings.filters if entry not in before]

    def stop(self) -> None:
        """Let everything through again that came through before."""
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)
        self._levels = {}
        kept = [entry for entry in warnings.filters if entry not in self._filters]
        warnings.filters[:] = kept  # type: ignore[index]
        self._filters = []

    def __enter__(self) -> QuietLightning:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
