"""Requests a second and latencies of served exports, over loopback: `python -m benchmarks.serving runs/ccd`."""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import polars as pl
import psutil
from rich.console import Console
from rich.table import Table


class Load(NamedTuple):
    """What a server stood: latencies in seconds, one a request, and the seconds that all took."""

    latencies: list[float]
    seconds: float


def main() -> None:
    """Measure the student's export and the teacher system's, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run's folder with `export` and `export_teacher`")
    parser.add_argument("--requests", type=int, default=3000, help="measured requests at each concurrency")
    parser.add_argument("--concurrency", type=int, nargs="*", default=[1, 16], help="requests under way at a time")
    parser.add_argument("--k", type=int, default=20, help="items a request")
    chosen = parser.parse_args()
    table = Table(
        "export", "at a time", "requests/s", "p50 ms", "p99 ms", "CPU ms", "RSS MB", title=f"{chosen.run}, k={chosen.k}"
    )
    for name in ("export", "export_teacher"):
        folder = chosen.run / name
        users = pl.read_parquet(folder / "users.parquet")["raw"].to_list()
        with served(folder) as (url, server):
            asyncio.run(load(url, users, 300, 4, chosen.k))
            for concurrency in chosen.concurrency:
                before = spent(server)
                found = asyncio.run(load(url, users, chosen.requests, concurrency, chosen.k))
                cpu, memory = (spent(server) - before) / chosen.requests * 1e3, server.memory_info().rss / 1e6
                p50, p99 = np.percentile(found.latencies, [50, 99]) * 1e3
                rate = len(found.latencies) / found.seconds
                times = (f"{value:.2f}" for value in (p50, p99, cpu))
                table.add_row(name, str(concurrency), f"{rate:.0f}", *times, f"{memory:.0f}")
    Console(width=120).print(table)


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A server of an export on a free port: its address and its process."""
    train = Path(__file__).resolve().parents[1] / "train.py"
    command = [sys.executable, str(train), "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield re.findall(r"http://\S+", process.stdout.readline())[0], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def spent(process: psutil.Process) -> float:
    """Seconds of CPU time that a process has taken."""
    times = process.cpu_times()
    return times.user + times.system


async def load(url: str, users: list[str | int], requests: int, concurrency: int, k: int) -> Load:
    """Ask for random users, so many at a time."""
    chosen = iter(random.Random(0).choices(users, k=requests))
    latencies: list[float] = []

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            for user in chosen:
                started = time.perf_counter()
                (await client.get(f"/recommend/{user}", params={"k": k})).raise_for_status()
                latencies.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(concurrency)))
    return Load(latencies, time.perf_counter() - started)


if __name__ == "__main__":
    main()
