"""A terminal with a panel that changes in place, or a plain stream of lines."""

from __future__ import annotations

import atexit
from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.live import Live

from ccd_lightning.reporting.quiet import QuietLightning

FRAMES_PER_SECOND = 2
"""How often the panel is drawn; drawing takes a few milliseconds, beside the training."""


class Screen:
    """Where a callback speaks.

    Args:
        render: draws the panel; it is called from a thread of its own.
        quiet: hold back Lightning's messages while the screen is open.
        console: where to write; standard output by default.
    """

    def __init__(self, render: Callable[[], RenderableType], quiet: bool, console: Console | None = None) -> None:
        self.render, self.quiet = render, quiet
        self.console = console or Console()
        self._silence = QuietLightning()
        self._live: Live | None = None

    def open(self) -> None:
        """Show the panel, if this is a terminal."""
        if self.quiet:
            self._silence.start()
        if self.console.is_terminal and not self.console.is_jupyter:
            self._live = Live(
                get_renderable=self.render, console=self.console, refresh_per_second=FRAMES_PER_SECOND, transient=True
            )
            self._live.start()
        # An error between two stages reaches no hook of a callback.
        atexit.register(self.close)

    def close(self) -> None:
        """Leave the terminal and Lightning's loggers as they were; a second call changes nothing."""
        atexit.unregister(self.close)
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._silence.stop()

    def tell(self, line: str) -> None:
        """Leave a line: wrapped to the width of a terminal, whole in a log."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=not self.console.is_terminal)
