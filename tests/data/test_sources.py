from __future__ import annotations

import polars as pl
import pytest

from ccd_lightning.data import StreamSource, build_stream


class Purchases(StreamSource):
    def table(self) -> pl.DataFrame:
        return pl.DataFrame({"user": ["ann"], "item": [1], "block": [0], "split": ["train"]})


class Broken(StreamSource):
    def table(self) -> pl.DataFrame:
        return pl.DataFrame({"user": ["ann"]})


def test_source_of_a_user_needs_one_method():
    stream = build_stream(Purchases().table(), Purchases().describe())
    assert stream.users.raw.to_list() == ["ann"]


def test_source_of_a_user_is_called_by_its_class_in_errors():
    with pytest.raises(ValueError, match="Broken has no column `item`"):
        build_stream(Broken().table(), Broken().describe())
