from __future__ import annotations

import polars as pl
import pytest

from ccd_lightning.data import ContinualDataModule, StreamSource


class Listed(StreamSource):
    def __init__(self, users):
        self.users = users

    def table(self) -> pl.DataFrame:
        return pl.DataFrame({"user": self.users}).with_columns(item=pl.lit(1), block=pl.lit(0), split=pl.lit("train"))


def chosen(path, known, users):
    path.write_text("user\n" + "".join(f"{user}\n" for user in users))
    data = ContinualDataModule(Listed(known))
    data.choose_users(len(known), str(path))
    return data.predict_users.tolist()


def test_choose_users_knows_string_ids_that_look_like_integers(tmp_path):
    assert chosen(tmp_path / "users.csv", ["007", "100", "7"], ["7", "100"]) == [1, 2]
    assert chosen(tmp_path / "users.csv", ["007", "100", "7"], ["007", "100"]) == [0, 1]


def test_choose_users_refuses_an_id_that_is_written_otherwise(tmp_path):
    with pytest.raises(ValueError, match="user '8' is unknown"):
        chosen(tmp_path / "users.csv", ["007", "008"], ["8"])
    with pytest.raises(ValueError, match="holds strings, but the ids known so far are integers"):
        chosen(tmp_path / "users.csv", [7, 8], ["007"])
