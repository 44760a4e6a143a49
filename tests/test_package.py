"""The package's own names."""

from __future__ import annotations

import importlib
import subprocess
import sys

import ccd_lightning


def test_main_names_are_those_of_their_modules() -> None:
    for name, home in ccd_lightning._HOMES.items():
        assert getattr(ccd_lightning, name) is getattr(importlib.import_module(home), name)


def test_import_of_the_package_loads_no_framework() -> None:
    code = "import sys, ccd_lightning; print(sorted({'torch', 'lightning', 'polars', 'matplotlib'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
