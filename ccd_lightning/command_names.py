"""Names of the commands beside those of the Trainer; the files themselves are imported when their command is called."""

from __future__ import annotations

import ast
from pathlib import Path


def _summary(path: Path) -> str:
    """The first line of a file's docstring, which is read and not imported: commands may need extras."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


COMMANDS = {
    path.stem: _summary(path)
    for path in sorted(Path(__file__).with_name("commands").glob("*.py"))
    if not path.stem.startswith("_")
}
"""Name -> what it does, one for each file in `commands/`."""
