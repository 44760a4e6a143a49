"""A run that is killed again and again ends in the same numbers as one that never was."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from ccd_lightning.plan import StreamPlan

from .conftest import Nursery, assert_same_end
from .jobs import BLOCKS, EPOCHS, TEACHERS
from .saboteur import FILE_POINTS

STAGES = [stage for block in range(BLOCKS) for stage in StreamPlan().stages(block, TEACHERS)]
KILLED = -signal.SIGKILL
OFTEN, SELDOM = 0.0, 60.0
"""Seconds between two saves within a stage: at every epoch, or (in runs as short as these) never."""


@pytest.fixture(scope="module")
def unbroken(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("unbroken")
    assert nursery.run("learn_stream", folder / "log", folder=str(folder)) == 0
    return folder


def random_point(dice: random.Random, stage: str) -> dict[str, object]:
    """A point that every attempt at the stage comes past, whatever epoch it goes on from."""
    point = dice.choice(("stage_start", "train_start", "batch", "epoch_end", "stage_end", *FILE_POINTS))
    if "first" not in stage and "block0-distillation" not in stage:
        point = dice.choice((point, "validation_end"))
    most = {"batch": 2 * EPOCHS, "epoch_end": EPOCHS, "fsync": 3, "replace": 3}.get(point, 1)
    return {"stage": stage, "point": point, "count": dice.randint(1, most)}


@pytest.mark.parametrize(("seed", "every_seconds"), [(1, OFTEN), (2, OFTEN), (3, SELDOM)])
def test_run_killed_once_in_every_stage_ends_like_one_that_never_was(
    nursery: Nursery, tmp_path: Path, unbroken: Path, seed: int, every_seconds: float
) -> None:
    dice, log, run = random.Random(seed), tmp_path / "log", tmp_path / "run"
    for number, stage in enumerate(STAGES):
        point = random_point(dice, stage.name)
        settings = {"folder": str(run), "every_seconds": every_seconds, "resume": number > 0}
        assert nursery.run("learn_stream", log, point=point, **settings) == KILLED, (
            f"{point}\n{log.read_text()[-3000:]}"
        )
    assert nursery.run("learn_stream", log, folder=str(run), every_seconds=every_seconds, resume=True) == 0
    assert_same_end(run, unbroken)


@pytest.mark.parametrize("point", FILE_POINTS)
def test_run_killed_within_every_save_of_a_stage_ends_like_one_that_never_was(
    nursery: Nursery, tmp_path: Path, unbroken: Path, point: str
) -> None:
    log, run = tmp_path / "log", tmp_path / "run"
    stage, kills, code = "block1-teacher_update-1", 0, KILLED
    while code == KILLED:
        # One operation later each time, until the stage, whose attempts all begin where the last one has saved, is through.
        strike = {"stage": stage, "point": point, "count": 1 + kills % 4}
        code = nursery.run("learn_stream", log, folder=str(run), every_seconds=OFTEN, resume=kills > 0, point=strike)
        kills += code == KILLED
    assert code == 0, log.read_text()[-3000:]
    assert kills >= 1
    assert_same_end(run, unbroken)


def test_run_killed_at_random_times_ends_like_one_that_never_was(
    nursery: Nursery, tmp_path: Path, unbroken: Path
) -> None:
    dice, log, run = random.Random(0), tmp_path / "log", tmp_path / "run"
    code, attempts, kills = KILLED, 0, 0
    while code == KILLED:
        # Ever longer lives, so that a slow machine gets through too.
        life = dice.uniform(0.1, 0.6) * 1.1**attempts
        resume = any(run.glob("checkpoints/*.ckpt")) or any(run.glob("checkpoints/*.part"))
        code = nursery.run("learn_stream", log, kill_after=life, folder=str(run), every_seconds=OFTEN, resume=resume)
        attempts, kills = attempts + 1, kills + (code == KILLED)
    assert code == 0, log.read_text()[-3000:]
    assert kills >= 3
    assert_same_end(run, unbroken)
