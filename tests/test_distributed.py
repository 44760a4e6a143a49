"""One process and several give the same result up to the order of sums."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ccd_lightning import distributed
from ccd_lightning.objectives import knowledge

from . import distributed_worker

ROOT = Path(__file__).resolve().parents[1]


def run_processes(world: int, folder: Path) -> list[dict[str, Tensor]]:
    commands = [
        [sys.executable, "-W", "ignore", "-m", "tests.distributed_worker", str(rank), str(world), str(folder)]
        for rank in range(world)
    ]
    processes = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in processes:
        try:
            _, errors = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            for stuck in processes:
                stuck.kill()
            raise
        assert process.returncode == 0, errors
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]


def test_two_processes_rank_learn_and_measure_as_one_does(tmp_path, monkeypatch):
    monkeypatch.setattr(knowledge, "CHUNK", knowledge.CHUNK)
    expected = distributed_worker.everything()
    for found in run_processes(2, tmp_path):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_collectives_cost_nothing_in_one_process():
    table = torch.arange(6.0).reshape(2, 3)
    for collective in (distributed.share_rows, distributed.gather_tables, distributed.global_sum):
        assert collective(table) is table
    assert (distributed.world_size(), distributed.process_rank()) == (1, 0)


@pytest.mark.parametrize("world", [1, 2, 3, 9])
def test_own_chunks_of_all_processes_cover_the_range_once(monkeypatch, world):
    monkeypatch.setattr(distributed, "world_size", lambda: world)
    covered = []
    for rank in range(world):
        monkeypatch.setattr(distributed, "process_rank", lambda rank=rank: rank)
        covered += [row for piece in distributed.own_chunks(23, 4) for row in range(23)[piece]]
    assert sorted(covered) == list(range(23))
