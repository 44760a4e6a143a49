"""Shows the doctests of the sources as code: they stand in docstrings without a heading of their own."""

from __future__ import annotations

import re
from typing import Any

import griffe


class DoctestSections(griffe.Extension):
    """Puts `Examples:` above a docstring's first doctest."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite one docstring.

        Args:
            obj: whose docstring it is.
            kwargs: what else griffe tells.
        """
        if obj.docstring is not None and not re.search(r"^Examples?:", obj.docstring.value, re.MULTILINE):
            text, mark, doctests = obj.docstring.value.partition(">>>")
            if mark:
                obj.docstring.value = text + "Examples:\n" + re.sub(r"(?m)^(?=.)", "    ", mark + doctests)
