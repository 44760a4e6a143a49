"""The run whose pages are looked at."""

from __future__ import annotations

from ..callbacks.conftest import reported

__all__ = ["reported"]
