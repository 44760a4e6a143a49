"""Carries out a study: every run as a process of its own, several at a time, none of them twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from ccd_lightning.checkpoint import alone_in, checkpoints_in, has_saved
from ccd_lightning.processes import last_words
from ccd_lightning.reporting import to_json, write_atomically
from ccd_lightning.studies.study import Run, Study

STAMP = "study.json"
LOG = "run.log"
AFTER_BASE = "-block0-distillation"
"""In the name of the checkpoint after the last stage of D_0."""

_PROGRAM = "from ccd_lightning.cli import main; main()"
_SECONDS = 0.2


def carry_out(study: Study) -> dict[str, str]:
    """Run whatever is not finished.

    Finished runs are kept, runs that were stopped go on, and runs that failed are tried again. A run whose D_0 is the same
    as another's begins with what that one had after D_0.

    Args:
        study: methods and seeds.

    Returns:
        what went wrong: run -> message.

    Raises:
        ValueError: if a run was made with other settings.
        MisconfigurationException: if another process works on the study.
        SystemExit: with 128 and the signal's number on SIGINT and SIGTERM, once the runs have saved what they had done.
    """
    for run in study.runs:
        _check_settings(run)
    option = "output" if study.runs_in is None else "runs_in"
    with alone_in(study.pool, f"wait for it, or name another folder with `--{option}`.") as lock:
        return _Pool(study, lock).work()


def is_finished(run: Run) -> bool:
    """Whether every block of a run is learned and measured."""
    manifest = run.folder / "stream.json"
    return manifest.is_file() and json.loads(manifest.read_text())["status"] == "finished"


class _Pool:
    """At most `jobs` runs at a time, in the study's order."""

    def __init__(self, study: Study, lock: int) -> None:
        self.study, self.lock = study, lock
        self.waiting = [run for run in study.runs if not is_finished(run)]
        self.families = {run.folder: run.family for run in study.runs} | _families_of_others(study)
        self.active: dict[str, tuple[Run, subprocess.Popen[bytes]]] = {}
        self.said_before: dict[str, int] = {}
        self.failed: dict[str, str] = {}
        self.asked: int | None = None

    def work(self) -> dict[str, str]:
        print(f"{len(self.study.runs) - len(self.waiting)} of {len(self.study.runs)} runs are finished.", flush=True)
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while (self.waiting or self.active) and self.asked is None:
                self._start_those_that_can()
                self._look()
        finally:
            self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.asked is not None:
            print("Stopped; the same command goes on.", file=sys.stderr)
            raise SystemExit(128 + self.asked)
        return self.failed

    def _start_those_that_can(self) -> None:
        for run in list(self.waiting):
            if len(self.active) == self.study.jobs:
                return
            origin = self._origin(run)
            if origin is None and any(_makes_first_block_of(other, run) for other, _ in self.active.values()):
                # What it needs is just being made.
                continue
            self.waiting.remove(run)
            self.active[run.name] = (run, self._start(run, origin))

    def _origin(self, run: Run) -> Path | str | None:
        """Where a run goes on, or begins: its own checkpoints, or another's after D_0."""
        if has_saved(run.folder):
            return "last"
        family = [folder for folder, name in self.families.items() if name == run.family]
        found = [path for folder in family for path in checkpoints_in(folder) if AFTER_BASE in path.name]
        return found[0] if found else None

    def _start(self, run: Run, origin: Path | str | None) -> subprocess.Popen[bytes]:
        _stamp(run, origin)
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.study.threads)}
        print(f"{run.name} begins" + (f" with {origin}" if origin else ""), flush=True)
        with (run.folder / LOG).open("ab") as log:
            self.said_before[run.name] = log.tell()
            return subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *run.command(origin)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                # Signals of the terminal come to the study alone, and while a run lives, the study is not begun again.
                start_new_session=True,
                pass_fds=(self.lock,),
            )

    def _look(self) -> None:
        for name, (run, process) in list(self.active.items()):
            code = process.poll()
            if code is None:
                continue
            del self.active[name]
            if code:
                self.failed[name] = last_words(run.folder / LOG, code, self.said_before[name])
            print(f"{name}: {self.failed.get(name, 'finished')}", flush=True)
        time.sleep(_SECONDS)

    def _stop(self) -> None:
        """Let the runs save what they have done."""
        for _, process in self.active.values():
            process.terminate()
        for _, process in self.active.values():
            process.wait()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = number


def _families_of_others(study: Study) -> dict[Path, str]:
    """Folders of runs in the pool that another study made with the same arguments, and the families of those runs."""
    found = {}
    for path in sorted(study.pool.glob(f"*/{STAMP}")):
        stamp = json.loads(path.read_text())
        # A study keeps a file of this name too, which may lie among the runs.
        if stamp.get("arguments") == study.arguments:
            found[path.parent] = Run(
                stamp["method"], stamp["seed"], path.parent, [], stamp["arguments"], stamp["settings"]
            ).family
    return found


def _makes_first_block_of(other: Run, run: Run) -> bool:
    """Whether a run that goes on will leave what another can begin with: not if it began with another's D_0 itself."""
    stamp = stamp_of(other)
    return other.family == run.family and stamp is not None and stamp["began_with"] is None


def _stamp(run: Run, origin: Path | str | None) -> None:
    """Note with what a run is made, and from where it began."""
    before = stamp_of(run) or {"began_with": None if origin is None else str(origin)}
    content = {"method": run.method, "seed": run.seed, "settings": run.settings, "arguments": run.arguments}
    write_atomically(run.folder / STAMP, to_json({**before, **content, "command": run.command(None)}))


def stamp_of(run: Run) -> dict[str, Any] | None:
    """What was noted when a run first began; ``None`` if it never did."""
    path = run.folder / STAMP
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
    return found


def _check_settings(run: Run) -> None:
    stamp = stamp_of(run)
    present = json.loads(to_json({"settings": run.settings, "arguments": run.arguments}))
    if stamp is not None and any(stamp[key] != value for key, value in present.items()):
        raise ValueError(
            f"{run.folder} was made with other settings than the study now has for {run.method}: remove the folder, or name"
            " another `output`, or `runs_in` where that is set."
        )
