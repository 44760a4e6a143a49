"""Commands beside those of the Trainer, such as `python train.py compare`: one file each.

A file that is laid into this folder is a command. Its docstring is the command's help, `add_arguments(parser)` declares the
arguments and `run(arguments)` does the work. Files are imported when their command is called, so they may need extras.
"""

from __future__ import annotations

import pkgutil

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")))
"""Names of all commands."""
