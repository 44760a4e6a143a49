"""Small pieces of HTML; whatever comes from outside is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", total: bool = False) -> str:
    """A table whose first column names the rows.

    Args:
        head: names of the columns.
        rows: cells as text.
        caption: a line below.
        total: whether the last row is a sum.
    """
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(_row(row, total and row is rows[-1]) for row in rows)
    # Beside the table, not inside it: a caption would grow as wide as the table and scroll out of sight with it.
    below = f'<p class="soft">{escape(caption)}</p>' if caption else ""
    return f'<div class="scroll"><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>{below}'


def _row(cells: Sequence[str], total: bool) -> str:
    values = "".join(f"<td>{escape(cell)}</td>" for cell in cells[1:])
    mark = ' class="total"' if total else ""
    return f'<tr{mark}><th scope="row">{escape(cells[0])}</th>{values}</tr>'


def tile(value: str, meaning: str, kind: str = "") -> str:
    """One key number with what it means."""
    return f'<div class="tile {kind}"><b>{escape(value)}</b><span class="soft">{escape(meaning)}</span></div>'


def section(title: str, text: str, *parts: str) -> str:
    """A heading, a line that explains, and the parts; nothing if all the parts are empty."""
    if not any(parts):
        return ""
    return f'<section><h2>{escape(title)}</h2><p class="soft">{escape(text)}</p>{"".join(parts)}</section>'


def folded(title: str, text: str) -> str:
    """Preformatted text that opens on a click."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"
