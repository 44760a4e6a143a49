"""Raw ids of the data, and the contiguous ids that index embedding rows."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from ccd_lightning.data.tables import read_parquet

_KINDS = {pl.Int64: "integers", pl.String: "strings", pl.Null: "nothing"}


def as_raw_ids(values: pl.Series, origin: str) -> pl.Series:
    """Bring ids to the one integer type or the one string type, so that their width in a file does not matter.

    Args:
        values: raw ids, named after their column.
        origin: what error messages call the data.

    Returns:
        The same ids as ``Int64`` or ``String``.

    Raises:
        ValueError: if the ids are neither integers nor strings, or exceed 64 bits with a sign.
    """
    if values.dtype == pl.String or isinstance(values.dtype, pl.Categorical | pl.Enum):
        text: pl.Series = values.cast(pl.String)
        return text
    if not values.dtype.is_integer():
        raise ValueError(
            f"{origin}: column `{values.name}` holds {values.dtype}, but ids must be integers or strings."
            " Convert the column before it is read."
        )
    narrow: pl.Series = values.cast(pl.Int64, strict=False)
    if narrow.null_count() > values.null_count():
        raise ValueError(
            f"{origin}: column `{values.name}` holds {values.max()!r}, but integer ids must be below 2**63."
            " Store such ids as strings."
        )
    return narrow


class IdMap:
    """Contiguous ids by first appearance: the entity that appears n-th has id n - 1, for good.

    Args:
        raw: raw ids in order of first appearance, without repeats; ``None`` knows no one.

    Example:
        >>> known = IdMap().extend(pl.Series("user", ["eve", "bob", "eve"]))
        >>> known.extend(pl.Series("user", ["ann", "bob"])).encode(pl.Series("user", ["ann", "bob", "eve"]))
        tensor([2, 1, 0])
    """

    def __init__(self, raw: pl.Series | None = None) -> None:
        self.raw = pl.Series("raw", [], dtype=pl.Null) if raw is None else raw.rename("raw")

    def __len__(self) -> int:
        return len(self.raw)

    def extend(self, raw: pl.Series, origin: str = "The id map") -> IdMap:
        """A map that also knows these ids; those known before keep their numbers.

        Args:
            raw: raw ids, repeats allowed.
            origin: what error messages call the data.

        Raises:
            ValueError: if the ids are strings where integers are known already, or the other way round.
        """
        values = self._checked(raw, origin).unique(maintain_order=True).rename("raw")
        fresh = values.filter(self._positions(values).is_null())
        return IdMap(pl.concat([self.raw, fresh]) if len(self) else fresh)

    def encode(self, raw: pl.Series, origin: str = "The id map") -> Tensor:
        """Contiguous ids of raw ones.

        Args:
            raw: raw ids that the map knows.
            origin: what error messages call the data.

        Returns:
            int64 ``(len(raw),)``.

        Raises:
            ValueError: if an id is unknown.
        """
        values = self._checked(raw, origin)
        ids = self._positions(values)
        if ids.null_count():
            raise ValueError(
                f"{origin}: {raw.name or 'id'} {values.filter(ids.is_null())[0]!r} is unknown, but every id must be one"
                f" of the {len(self)} in the map. Extend the map first, or leave such rows out."
            )
        return torch.from_numpy(ids.to_numpy(writable=True))

    def decode(self, ids: Tensor) -> pl.Series:
        """Raw ids of contiguous ones.

        Args:
            ids: int64 ``(n,)``.
        """
        return self.raw.gather(ids.cpu().numpy())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the map as Parquet with columns ``raw`` and ``id``; a crash leaves the old file or the new one."""
        target = Path(path)
        unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            pl.DataFrame({"raw": self.raw, "id": pl.arange(len(self), eager=True)}).write_parquet(unfinished)
            unfinished.replace(target)
        except pl.exceptions.PolarsError as error:
            raise OSError(
                f"{target} could not be written ({error}): see that the folder can be written to and has room."
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> IdMap:
        """Read what `save` wrote.

        Raises:
            ValueError: if the file is none of ours, or its numbers are not 0, 1, 2, ...
        """
        try:
            table = read_parquet(Path(path)).select("raw", "id")
        except (OSError, ValueError, pl.exceptions.PolarsError) as error:
            raise ValueError(
                f"{path} cannot be read as an id map ({error}); expected Parquet with the columns `raw` and `id`."
                " Point to the folder of the run that wrote it."
            ) from error
        if table["id"].to_list() != list(range(table.height)) or table["raw"].n_unique() < table.height:
            raise ValueError(
                f"{path}: the ids are not 0, 1, 2, ... without repeats, so the file was changed after it was saved."
                " Restore it from the run that wrote it."
            )
        return cls(table["raw"])

    def _checked(self, raw: pl.Series, origin: str) -> pl.Series:
        values = as_raw_ids(raw, origin)
        if len(self) and values.dtype != self.raw.dtype:
            raise ValueError(
                f"{origin}: column `{raw.name}` holds {_KINDS[type(values.dtype)]}, but the ids known so far are"
                f" {_KINDS[type(self.raw.dtype)]}. Give the ids the same type in every block."
            )
        return values

    def _positions(self, values: pl.Series) -> pl.Series:
        if not len(self):
            return pl.Series(values.name, [None] * len(values), dtype=pl.Int64)
        numbers = pl.arange(len(self), eager=True)
        found: pl.Series = values.replace_strict(self.raw, numbers, default=None, return_dtype=pl.Int64)
        return found
