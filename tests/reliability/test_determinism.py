"""The same seed gives the same tensors, whatever the configuration; another seed gives others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ccd_lightning.checkpoint import checkpoints_in, read_checkpoint
from ccd_lightning.cli import main
from tests.helpers import REAL, SIMULATED, cut, short_real_fit, short_simulated_fit, table_of

from .conftest import assert_same_end

QUICK = ("--report.figures=false",)


def check_twins(folder: Path, arguments: list[str]) -> None:
    """Run twice, then the first block once more with another seed."""
    for name in ("first", "second"):
        main([*arguments, *QUICK, "--trainer.default_root_dir", str(folder / name)])
    assert_same_end(folder / "second", folder / "first")
    other = ["--seed_everything=1", "--data.max_blocks=1", "--trainer.default_root_dir", str(folder / "other")]
    main([*arguments, *QUICK, *other])
    states = [
        read_checkpoint(path)["system"] for path in (after_block(folder / "first"), after_block(folder / "other"))
    ]
    assert states[0].keys() == states[1].keys()
    # The clusters of personal weights begin on later blocks.
    models = [name for name in states[0] if name.startswith(("student", "teachers")) and "personal" not in name]
    tables = [name for name in models if states[0][name].numel() > 100]
    assert tables
    assert not [name for name in tables if torch.equal(states[0][name], states[1][name])]


def after_block(run: Path) -> Path:
    """The last checkpoint of the first block."""
    return [path for path in checkpoints_in(run) if "block0" in path.name][-1]


@pytest.mark.real_data
@pytest.mark.parametrize("config", REAL)
def test_twins_on_a_real_stream_are_equal_and_another_seed_is_not(
    tmp_path: Path, shared_data: Path, config: str
) -> None:
    table = cut(table_of(config, shared_data), tmp_path, users=150, items=120, blocks=2)
    check_twins(tmp_path, short_real_fit(config, table, tmp_path / "run"))


@pytest.mark.parametrize("config", SIMULATED)
def test_twins_on_the_simulated_stream_are_equal_and_another_seed_is_not(tmp_path: Path, config: str) -> None:
    check_twins(tmp_path, short_simulated_fit(config, tmp_path / "run", blocks=2))
