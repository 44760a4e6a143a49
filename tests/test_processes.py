"""What watches over the processes of a run ends with it."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ccd_lightning.processes import ChildWatch, surviving
from tests.callbacks.conftest import new_stream, new_system, new_trainer


def test_a_fit_in_one_process_leaves_neither_threads_nor_its_trainer(tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path)
    before = set(threading.enumerate())
    trainer.fit(new_system(), datamodule=new_stream(blocks=1))
    assert set(threading.enumerate()) == before
    alive = weakref.ref(trainer)
    del trainer
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("fails", [False, True])
def test_nobody_waits_for_processes_that_were_never_started(fails: bool) -> None:
    trainer: Any = SimpleNamespace(
        strategy=SimpleNamespace(launcher=SimpleNamespace(procs=[])), callbacks=[], state=SimpleNamespace(status=None)
    )
    before = threading.active_count()
    try:
        with surviving(trainer, new_system()):
            assert threading.active_count() == before + 1
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert threading.active_count() == before


def test_started_processes_are_watched_beyond_the_end() -> None:
    processes: list[subprocess.Popen[bytes]] = []
    watch = ChildWatch(lambda: processes)
    before = set(threading.enumerate())
    watch.start()
    processes.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
    watch.end()
    (watcher,) = set(threading.enumerate()) - before
    processes[0].communicate(b"\n")
    watcher.join(10)
    assert not watcher.is_alive()
