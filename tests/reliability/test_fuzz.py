"""Random damage to tables and configurations: success or a clean refusal, nothing else."""

from __future__ import annotations

import contextlib
import copy
import io
import random
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccd_lightning.cli import CCDCLI, main
from ccd_lightning.data import BlockTable, InteractionLog, StreamSource, build_stream
from ccd_lightning.types import Split
from tests.reliability.refusals import ROOT, is_one_paragraph

STEADY = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
COLUMNS = ("user", "item", "block", "split", "time")
STRANGE: list[Any] = [
    *(None, -1, 0, 2**31, 2**62, -(2**63), 1e300, -0.5, float("nan"), float("inf")),
    *(
        "",
        " ",
        "x",
        "0",
        "1.5",
        "train",
        "Ünïcödé 🦊",
        "é\u0301",
        "=cmd|' /C calc'!A0",
        "a,b",
        'q"q',
        "x" * 3000,
        "null",
    ),
    *(True, b"\xff\x00", [1, 2], [], {"a": 1}),
]


def base_table() -> pl.DataFrame:
    rows = [
        (user, (user * 3 + place + block) % 7, block, split, 10 * block + place)
        for block in (0, 1, 2)
        for user in range(4)
        for place, split in enumerate(("train", "train", "valid", "test"))
    ]
    return pl.DataFrame(rows, schema=list(COLUMNS), orient="row")


def drop(table: pl.DataFrame, rnd: random.Random) -> pl.DataFrame:
    return table.drop(rnd.choice(table.columns)) if table.width > 1 else table


def retype(table: pl.DataFrame, rnd: random.Random) -> pl.DataFrame:
    kinds = [
        pl.String,
        pl.Float64,
        pl.Int8,
        pl.UInt64,
        pl.Boolean,
        pl.Categorical,
        pl.Date,
        pl.Binary,
        pl.Decimal(20, 3),
    ]
    column = rnd.choice(table.columns)
    try:
        return table.with_columns(table[column].cast(rnd.choice(kinds), strict=False).alias(column))
    except pl.exceptions.PolarsError:
        return table


def replace_value(table: pl.DataFrame, rnd: random.Random) -> pl.DataFrame:
    column, strange = rnd.choice(table.columns), rnd.choice(STRANGE)
    values = table[column].to_list()
    if values:
        values[rnd.randrange(len(values))] = strange
    return with_values(table, column, values)


def replace_column(table: pl.DataFrame, rnd: random.Random) -> pl.DataFrame:
    return with_values(table, rnd.choice(table.columns), [rnd.choice(STRANGE)] * table.height)


def with_values(table: pl.DataFrame, column: str, values: list[Any]) -> pl.DataFrame:
    """Values of mixed types become text, as in a CSV."""
    try:
        series = pl.Series(column, values, strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        series = pl.Series(column, [None if value is None else str(value) for value in values], dtype=pl.String)
    return table.with_columns(series) if len(series) == table.height else table


def shuffle(table: pl.DataFrame, rnd: random.Random) -> pl.DataFrame:
    return table.sample(fraction=1.0, shuffle=True, seed=rnd.randrange(1000))


def swap_blocks(table: pl.DataFrame, rnd: random.Random) -> pl.DataFrame:
    return table.reverse()


def repeat_rows(table: pl.DataFrame, rnd: random.Random) -> pl.DataFrame:
    return pl.concat([table.head(rnd.randrange(3)), table])


def cut(table: pl.DataFrame, rnd: random.Random) -> pl.DataFrame:
    return table.head(rnd.choice([0, 1, 2, 17, 40]))


def rename(table: pl.DataFrame, rnd: random.Random) -> pl.DataFrame:
    column = rnd.choice(table.columns)
    return table.rename({column: rnd.choice([column.upper(), f" {column}", "", "Ünï"])})


DAMAGE = [drop, retype, replace_value, replace_value, replace_column, shuffle, swap_blocks, repeat_rows, cut, rename]


@st.composite
def damaged_tables(draw: st.DrawFn) -> pl.DataFrame:
    table = base_table()
    for damage in draw(st.lists(st.sampled_from(DAMAGE), min_size=1, max_size=3)):
        with contextlib.suppress(pl.exceptions.DuplicateError):
            table = damage(table, random.Random(draw(st.integers(0, 10**6))))
    return table


def check_table(read: Any, origin: str, height: int | None = None) -> None:
    """A stream in which all adds up, or one paragraph that names where it came from."""
    try:
        stream = build_stream(read(), origin)
    except ValueError as error:
        assert is_one_paragraph(str(error)), error
        assert origin in str(error)
        return
    known = (0, 0)
    for block in stream.blocks:
        assert (block.num_old_users, block.num_old_items) == known
        known = block.num_users, block.num_items
        for split in Split:
            part = block.split(split)
            assert part.size == 0 or int(part.users.max()) < known[0]
            assert part.size == 0 or int(part.items.max()) < known[1]
    assert (len(stream.users), len(stream.items)) == known
    rows = sum(block.split(split).size for block in stream.blocks for split in Split) + stream.repeats_dropped
    assert height is None or rows == height


@given(damaged_tables())
@settings(STEADY, max_examples=300)
def test_damaged_tables_are_refused_or_add_up(table: pl.DataFrame) -> None:
    check_table(lambda: table, "the table", table.height)


@given(damaged_tables(), st.sampled_from(["parquet", "csv", "tsv"]), st.booleans())
@settings(STEADY, max_examples=250)
def test_damaged_files_are_refused_or_add_up(table: pl.DataFrame, suffix: str, as_log: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"events.{suffix}"
        try:
            table.write_parquet(path) if suffix == "parquet" else table.write_csv(
                path, separator="," if suffix == "csv" else "\t"
            )
        except (pl.exceptions.PolarsError, TypeError):
            # The writer, not the reader, refuses nested columns.
            return
        source: StreamSource = InteractionLog(path, core=0, blocks=2) if as_log else BlockTable(path)
        check_table(source.table, str(path))


@given(st.binary(max_size=60), st.integers(0, 400), st.sampled_from(["parquet", "csv"]), st.booleans())
@settings(STEADY, max_examples=200)
def test_files_with_changed_bytes_are_refused_or_add_up(patch: bytes, at: int, suffix: str, as_log: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"events.{suffix}"
        base_table().write_parquet(path) if suffix == "parquet" else base_table().write_csv(path)
        content = bytearray(path.read_bytes())
        content[at : at + len(patch)] = patch
        path.write_bytes(content)
        source: StreamSource = InteractionLog(path, core=0, blocks=2) if as_log else BlockTable(path)
        check_table(source.table, str(path))


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every key of a nested configuration."""
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [place for key, value in entries for place in [(*path, key), *places(value, (*path, key))]]


def parent_of(content: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        content = content[key]
    return content


def misspell(word: str, rnd: random.Random) -> str:
    at = rnd.randrange(len(word))
    return rnd.choice(
        [word[:at] + word[at + 1 :], word[:at] + "x" + word[at:], word.upper(), word[::-1], f"{word}.{word}"]
    )


VALUES: list[Any] = [
    *(
        None,
        -1,
        0,
        1,
        3,
        -0.5,
        0.5,
        1e300,
        10**6,
        float("nan"),
        float("inf"),
        True,
        "",
        "x",
        "1e-3",
        "ccd_lightning.data.Nope",
    ),
    *([], [0], [1, 2], {}, {"x": 1}, "${nowhere}", "os.system", "é"),
]
CONFIG = yaml.safe_load((ROOT / "configs" / "ccd.yaml").read_text())


@st.composite
def damaged_configs(draw: st.DrawFn) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(places(config)))
        rnd = random.Random(draw(st.integers(0, 10**6)))
        parent = parent_of(config, path)
        if rnd.random() < 0.4 and isinstance(path[-1], str):
            parent[misspell(path[-1], rnd)] = parent.pop(path[-1])
        else:
            parent[path[-1]] = rnd.choice(VALUES)
    return config


@given(damaged_configs())
@settings(STEADY, max_examples=60)
def test_damaged_configurations_are_refused_or_built(config: dict[str, Any]) -> None:
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        # Everything but the run itself: parsed, checked and built.
        patch.setattr(CCDCLI, "_run_subcommand", lambda self, subcommand: None)
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump(config, allow_unicode=True))
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            try:
                main(["fit", "--config", str(path), "--trainer.default_root_dir", f"{folder}/run"])
            except SystemExit as stop:
                message = printed.getvalue().partition("error: ")[2]
                assert stop.code == 2
                assert is_one_paragraph(message), message
        assert [file.name for file in Path(folder).iterdir()] == ["config.yaml"]
