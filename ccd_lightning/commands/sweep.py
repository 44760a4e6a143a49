"""Search for settings on this machine, with Optuna.

Runs the file of a W&B sweep without an account and without a server.
`python train.py sweep --config configs/sweep.yaml` prints the best settings as YAML, for `--config` behind the
configuration. The same command goes on with a sweep that was stopped; started several times, it shares the trials.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--config", required=True, help="file of a W&B sweep, such as configs/sweep.yaml")
    parser.add_argument("--trials", type=int, help="trials of the sweep in all (default: `run_cap` of the file, or 20)")
    parser.add_argument("--storage", help="URL of the study's database (default: study.db in the sweep's folder)")
    parser.add_argument("--folder", help="where trials and study.db are written (default: runs/<name of the sweep>)")


def run(arguments: argparse.Namespace) -> None:
    """Run the sweep, then print the best settings and keep them as ``best.yaml`` in its folder.

    Raises:
        MisconfigurationException: if Optuna is not installed, or the file or an argument is wrong.
        ValueError: if a trial's settings are refused.
        SystemExit: if the sweep is interrupted.
    """
    if find_spec("optuna") is None:
        raise MisconfigurationException(
            "A local sweep needs Optuna, which is not installed: `pip install 'ccd-lightning[sweep]'`, or use `wandb sweep`."
        )
    if arguments.trials is not None and arguments.trials < 1:
        raise MisconfigurationException(
            f"`--trials` is {arguments.trials}, but a sweep has at least 1: pass 1 or more."
        )
    from ccd_lightning.reporting import write_atomically
    from ccd_lightning.sweeps.file import read_sweep
    from ccd_lightning.sweeps.study import best_settings, run_sweep

    sweep = read_sweep(Path(arguments.config))
    folder = Path(arguments.folder or Path("runs") / sweep.name)
    try:
        study = run_sweep(sweep, folder, arguments.storage, arguments.trials)
    except KeyboardInterrupt:
        print("The sweep is interrupted; the same command goes on with it.", file=sys.stderr)
        raise SystemExit(130) from None
    best = best_settings(sweep, study)
    write_atomically(folder / "best.yaml", best)
    print(best, end="", flush=True)
    print(f"best settings in {folder / 'best.yaml'}", file=sys.stderr)
