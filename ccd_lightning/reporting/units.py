"""Numbers for people."""

from __future__ import annotations

import math
import textwrap

NOTHING = "\u2013"
"""A dash, where there is no number."""

TIED = "\u00a0"
"""A space at which :func:`fold` breaks no line: between a name and its number."""


def duration(seconds: float) -> str:
    """Seconds in at most two units.

    >>> duration(3.14), duration(95), duration(3725)
    ('3.1 s', '1 min 35 s', '1 h 02 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float, unit: str = "B") -> str:
    """A count in thousands, millions, ... of a unit, three digits.

    >>> size(812_345_678), size(1234, "parameters"), size(12, "")
    ('812 MB', '1.23 k parameters', '12')
    """
    names = ("", "k", "M", "G", "T")
    power = 0
    while abs(count) >= 999.5 and power < len(names) - 1:
        count, power = count / 1000, power + 1
    digits = f"{count:.3g}" if power else f"{count:.0f}"
    gap = " " if len(unit) > 1 and power else ""
    return f"{digits} {names[power]}{gap}{unit}".strip()


def compact(value: float) -> str:
    """A loss of any magnitude in three digits.

    >>> compact(0.4321), compact(1402.3), compact(0.00012)
    ('0.432', '1.4k', '1.2e-04')
    """
    if abs(value) >= 999.5:
        return size(value, "").replace(" ", "")
    return f"{value:.3g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"


def score(value: float | None) -> str:
    """A metric in four decimals, or a dash where there is none.

    >>> score(0.10119), score(None) == NOTHING == score(math.nan)
    ('0.1012', True)
    """
    return NOTHING if value is None or math.isnan(value) else f"{value:.4f}"


def fold(text: str, width: int | None = None) -> str:
    """Break a line between words, and let what follows stand out from it; tied spaces become ordinary ones.

    Args:
        text: one line.
        width: columns; ``None`` leaves the line whole.

    >>> print(fold(f"losses own{TIED}205 replay{TIED}41", 15))
    losses own 205
      replay 41
    """
    lines = [text]
    if width is not None:
        lines = textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(TIED, " ")
