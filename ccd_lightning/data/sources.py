"""The contract of everything that can feed a stream."""

from __future__ import annotations

from abc import ABC, abstractmethod

import polars as pl


class StreamSource(ABC):
    """Where the interactions come from.

    A source of your own implements `table`; what it returns is checked, numbered and cut into blocks by
    `ccd_lightning.data.build_stream`.

    Example:
        >>> class Tiny(StreamSource):
        ...     def table(self) -> pl.DataFrame:
        ...         rows = [("ann", "tea", 0, "train"), ("ann", "rye", 0, "valid"), ("bob", "rye", 1, "train")]
        ...         return pl.DataFrame(rows, schema=["user", "item", "block", "split"], orient="row")
        >>> Tiny().table().shape
        (3, 4)
    """

    @abstractmethod
    def table(self) -> pl.DataFrame:
        """All the interactions, in order of appearance.

        The same source must give the same rows again, and later blocks must leave the earlier ones as they were:
        that is how a run is resumed when new blocks have come.

        Returns:
            Columns ``user`` and ``item`` (integers or strings), ``block`` (integers from 0 that never go backwards)
            and ``split`` (``train``, ``valid`` or ``test``).
        """

    def describe(self) -> str:
        """What error messages call this source: the file's name where there is one."""
        return type(self).__name__
