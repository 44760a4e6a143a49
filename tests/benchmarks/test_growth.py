from __future__ import annotations

import json
import mmap
import sys

import pytest

from benchmarks import growth
from benchmarks.growth_phases import Size
from benchmarks.measuring import Clock


def test_slope_is_the_exponent_of_a_power_law():
    sizes = [10.0, 100.0, 1000.0]
    assert growth.slope(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx(1.5)


def test_joined_runs_keep_the_least_time_and_the_largest_memory():
    first = {"name": "load", "cpu_seconds": 2.0, "wall_seconds": 5.0, "peak_bytes": 7}
    second = {"name": "load", "cpu_seconds": 3.0, "wall_seconds": 4.0, "peak_bytes": 9}
    (phase,) = growth.joined([{"phases": [first]}, {"phases": [second]}])["phases"]
    assert phase == {"name": "load", "cpu_seconds": 2.0, "wall_seconds": 4.0, "peak_bytes": 9}


def test_total_counts_each_interaction_phase_once():
    rows = [
        ("simulate", "interaction", 8.0),
        ("pair sets", "interaction", 1.0),
        ("load an epoch", "interaction", 2.0),
        ("BPR-MF epoch", "interaction", 3.0),
        ("evaluation", "score", 16.0),
    ]
    phases = [
        {"name": name, "unit": unit, "amount": 5, "cpu_seconds": seconds, "wall_seconds": 2 * seconds, "peak_bytes": 1}
        for name, unit, seconds in rows
    ]
    *kept, total = growth.with_total({"size": {"interactions": 10}, "phases": phases})["phases"]
    assert kept == phases
    assert (total["amount"], total["cpu_seconds"], total["wall_seconds"]) == (10, 4.0, 8.0)


def test_clock_sees_the_memory_of_a_phase_alone():
    clock = Clock()
    for name, size in (("large", 200_000_000), ("small", 1)):
        # A mapping is given back at once, where freed memory of the heap may be kept for reuse.
        with clock.phase(name, "byte", size), mmap.mmap(-1, size) as pages:
            for page in range(0, size, mmap.PAGESIZE):
                pages[page] = 1
    large, small = (phase.peak_bytes for phase in clock.phases)
    if sys.platform == "linux":
        assert large - small == pytest.approx(200_000_000, rel=0.1)


def test_growth_measures_every_phase_and_writes_three_files(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "measure_apart", growth.measure_here)
    monkeypatch.setattr(
        sys, "argv", ["growth", "--sizes", "200x100x4000", "400x200x8000", "--repeats", "1", "--output", str(tmp_path)]
    )
    growth.main()
    found = json.loads((tmp_path / "growth.json").read_text())
    assert [run["size"]["users"] for run in found["runs"]] == [200, 400]
    phases = found["runs"][0]["phases"]
    assert {"simulate", "blocks and ids", "BPR-MF epoch", "ranking lists", "replay draw", "evaluation"} <= {
        phase["name"] for phase in phases
    }
    assert all(phase["amount"] > 0 and phase["cpu_seconds"] > 0 for phase in phases)
    assert set(found["slopes"]) == {phase["name"] for phase in phases}
    # Four models of 16, 8, 8 and 8 float32 numbers a row.
    assert found["runs"][1]["checkpoint_bytes"] == pytest.approx(600 * 40 * 4, rel=0.3)
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert "200 x 100, 4,000" in (tmp_path / "growth.md").read_text()


def test_size_is_read_from_text():
    assert growth.as_size("30x20x10") == Size(30, 20, 10)
