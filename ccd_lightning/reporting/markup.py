"""Small pieces of HTML; whatever comes from outside is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from ccd_lightning.reporting.style import STYLE


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


def preformatted(text: str) -> str:
    """Text as it is."""
    return f"<pre>{escape(text)}</pre>"


def folded(title: str, content: str) -> str:
    """Content that opens on a click; nothing if there is none."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>" if content else ""


def bullets(texts: Sequence[str]) -> str:
    """A list of sentences; nothing if there are none."""
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>" if texts else ""


def definitions(texts: Mapping[str, str]) -> str:
    """Names with what is to be said about them."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in texts.items())}</dl>"


def paragraph(text: str) -> str:
    """A line of its own that explains; nothing if it is empty."""
    return f'<p class="soft">{escape(text)}</p>' if text else ""


def document(title: str, parts: Sequence[str]) -> str:
    """A page that needs nothing but a browser."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )
