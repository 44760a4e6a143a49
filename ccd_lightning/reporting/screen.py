"""A terminal with a panel that changes in place, or a plain stream of lines."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.live import Live
from typing_extensions import override

from ccd_lightning.reporting.units import fold

FRAMES_PER_SECOND = 2
"""How often the panel is drawn; drawing takes a few milliseconds, beside the training."""

ECHO = 2
"""Columns that stay free beside the panel: a terminal echoes Ctrl-C there, and would break the line elsewhere."""


class LastingConsole(Console):
    """A console whose reader may go away, such as `head`: nothing more is said then, and the training goes on."""

    @override
    def on_broken_pipe(self) -> None:
        self.quiet = True
        # Whatever else is printed must not meet the closed pipe either.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class Screen:
    """Where a callback speaks.

    Args:
        render: draws the panel in so many columns; it is called from a thread of its own.
        console: where to write; standard output by default.
    """

    def __init__(self, render: Callable[[int], RenderableType], console: Console | None = None) -> None:
        self.render = render
        self.console = console or LastingConsole()
        self._live: Live | None = None
        self._spoken = time.monotonic()

    @property
    def has_panel(self) -> bool:
        """Whether people see the present state at any moment."""
        return self._live is not None

    def open(self) -> None:
        """Show the panel, if this is a terminal that can move its cursor."""
        console = self.console
        if console.is_terminal and not console.is_dumb_terminal and not console.is_jupyter:
            self._live = Live(
                get_renderable=lambda: self.render(console.width - ECHO),
                console=console,
                refresh_per_second=FRAMES_PER_SECOND,
                transient=True,
            )
            self._live.start()
        # Whoever uses the callback without a trainer of streams may end without closing.
        atexit.register(self.close)

    def close(self) -> None:
        """Leave the terminal as it was; a second call changes nothing."""
        atexit.unregister(self.close)
        if self._live is not None:
            self._live.stop()
            self._live = None

    def tell(self, line: str) -> None:
        """Leave a line: folded to the width of a terminal, whole in a log."""
        width = self.console.width if self.console.is_terminal else None
        self.console.print(fold(line, width), markup=False, highlight=False, soft_wrap=True)
        self._spoken = time.monotonic()

    def silence(self) -> float:
        """Seconds in which nobody could see anything happen: 0 with a panel, else since the last line."""
        return 0.0 if self.has_panel else time.monotonic() - self._spoken
