"""Names of the commands beside those of the Trainer; the files themselves are imported when their command is called."""

from __future__ import annotations

import pkgutil
from pathlib import Path

COMMANDS = tuple(
    sorted(
        module.name
        for module in pkgutil.iter_modules([str(Path(__file__).with_name("commands"))])
        if not module.name.startswith("_")
    )
)
"""One for each file in `commands/`."""
