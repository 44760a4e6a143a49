"""A sweep as an Optuna study: stored in SQLite, shared by workers, taken up again after a kill."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from warnings import catch_warnings, simplefilter

import optuna
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.study import StudyDirection
from optuna.trial import FixedTrial, FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from ccd_lightning.sweeps.file import Sweep
from ccd_lightning.sweeps.start import own_values
from ccd_lightning.sweeps.trial import TrialFailedError, TrialRefusedError, alone_in, run_trial

HEARTBEAT = 5
"""Seconds between two signs of life of a worker; one that misses six of them is dead."""

TRIALS = 20
"""Trials where neither the command line nor the file says how many."""

_FIXED, _FOLDER, _ERROR = "sweep", "folder", "error"


def run_sweep(sweep: Sweep, folder: Path, storage: str | None = None, trials: int | None = None) -> optuna.Study:
    """Run trials until the study has as many as were asked for; several processes may do so at once.

    Args:
        sweep: what is tried.
        folder: where each trial gets a folder, and the study its database.
        storage: URL of another database.
        trials: all the trials of the study, those of earlier runs and of other workers among them.

    Raises:
        MisconfigurationException: if the database holds another sweep of the same name.
        TrialRefusedError: if a trial ends with a mistake in the input, which the next trials would end with as well.
        KeyboardInterrupt: on Ctrl-C or SIGTERM; the trial that was running is taken up by the next call.
    """
    with catch_warnings(), _sigterm_as_interrupt():
        simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # Workers that begin at once would both make the tables.
        with alone_in(folder):
            try:
                study = _open(sweep, storage or f"sqlite:///{folder / 'study.db'}")
            except (SQLAlchemyError, ImportError) as error:
                raise _refusal(storage or folder / "study.db", error) from error
            _begin_at_own_values(sweep, study)
        wanted = _wanted(sweep, trials)
        _tell(f"sweep {sweep.name}: {wanted} trials into {folder}")
        while True:
            fail_stale_trials(study)
            found = study.get_trials(deepcopy=False)
            if _is_wanted(found, wanted):
                _run_next(sweep, study, folder, wanted)
            elif any(trial.state is TrialState.RUNNING for trial in found):
                time.sleep(1.0)
            else:
                return study


def best_settings(sweep: Sweep, study: optuna.Study) -> str:
    """The best trial's settings as YAML that overlays a configuration.

    Raises:
        MisconfigurationException: if no trial has ended well.
    """
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not finished:
        errors = [trial.user_attrs[_ERROR] for trial in study.trials if _ERROR in trial.user_attrs]
        raise MisconfigurationException(
            f"None of the {_ended(study)} trials of the sweep {sweep.name} has ended well, so there are no best settings;"
            f" the last one said: {errors[-1] if errors else 'nothing'}. Mend what it says and give the sweep a new `name`."
        )
    best, count = study.best_trial, _ended(study)
    settings = OmegaConf.create()
    for name, value in _settings(sweep, best).items():
        OmegaConf.update(settings, name, value)
    return (
        f"# {sweep.objective} {best.value} in {_name(best)}, the best of {count} trials\n{OmegaConf.to_yaml(settings)}"
    )


def _refusal(database: str | Path, error: Exception) -> MisconfigurationException:
    reason = str(error).splitlines()[0]
    return MisconfigurationException(
        f"The database {database} cannot be used ({reason}): name another one with `--storage`, or remove what is damaged."
    )


def _open(sweep: Sweep, storage: str) -> optuna.Study:
    # Workers wait for each other's writes.
    patient = {"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else {}
    database = RDBStorage(
        storage,
        engine_kwargs=patient,
        heartbeat_interval=HEARTBEAT,
        grace_period=6 * HEARTBEAT,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
    )
    direction = StudyDirection.MAXIMIZE if sweep.goal == "maximize" else StudyDirection.MINIMIZE
    options: dict[str, Any] = {"study_name": sweep.name, "storage": database, "direction": direction}
    options |= {"sampler": _sampler(sweep), "pruner": _pruner(sweep), "load_if_exists": True}
    study = optuna.create_study(**options)
    if study.direction != direction and not study.trials:
        # Optuna goes on in the direction that a study began with, even if it was refused before its first trial.
        optuna.delete_study(study_name=sweep.name, storage=database)
        study = optuna.create_study(**options)
    fixed = json.dumps([sweep.command, sweep.objective, sweep.goal, [repr(part) for part in sweep.parameters]])
    if study.trials and study.user_attrs.get(_FIXED, fixed) != fixed:
        raise MisconfigurationException(
            f"{storage} holds a sweep {sweep.name} with another command, metric or parameters, whose trials do not compare: give"
            " the changed sweep another `name`, or remove the database."
        )
    study.set_user_attr(_FIXED, fixed)
    return study


def _begin_at_own_values(sweep: Sweep, study: optuna.Study) -> None:
    """A grid comes by them in its own time."""
    if study.trials or sweep.method == "grid":
        return
    try:
        values = own_values(sweep)
    except MisconfigurationException as error:
        _tell(f"The sweep does not begin with the configuration's own values: {error}")
    else:
        study.enqueue_trial(values)


def _sampler(sweep: Sweep) -> BaseSampler:
    """Without a seed, since every worker and every resumption would draw the same settings again."""
    if sweep.method == "grid":
        return GridSampler({part.name: part.grid() for part in sweep.parameters if len(part.values) != 1})
    return RandomSampler() if sweep.method == "random" else TPESampler(constant_liar=True)


def _pruner(sweep: Sweep) -> BasePruner:
    """Steps are blocks, counted from 0 as W&B counts its iterations.

    W&B's hyperband keeps the best 1/eta of all the trials at min_iter, min_iter * eta, ...: one bracket of Hyperband, that is
    successive halving.
    """
    stopping = sweep.early_terminate
    if not stopping:
        return NopPruner()
    if stopping["type"] == "median":
        return MedianPruner(n_warmup_steps=stopping["min_iter"])
    return SuccessiveHalvingPruner(min_resource=stopping["min_iter"], reduction_factor=stopping["eta"])


def _wanted(sweep: Sweep, trials: int | None) -> int:
    wanted = trials or sweep.run_cap or TRIALS
    if sweep.method != "grid":
        return wanted
    size = 1
    for part in sweep.parameters:
        size *= len(part.grid())
    return min(size, trials or sweep.run_cap or size)


def _is_wanted(found: list[FrozenTrial], wanted: int) -> bool:
    waiting = any(trial.state is TrialState.WAITING for trial in found)
    return waiting or len(found) - sum(map(_was_cut_off, found)) < wanted


def _was_cut_off(trial: FrozenTrial) -> bool:
    """Such trials stand twice: as failed without a word, and as what is to be run again."""
    return trial.state is TrialState.FAIL and _ERROR not in trial.user_attrs


def _ended(study: optuna.Study) -> int:
    return sum(trial.state.is_finished() and not _was_cut_off(trial) for trial in study.get_trials(deepcopy=False))


def _name(trial: FrozenTrial) -> str:
    """The trial's folder: its number in the study also counts the times that trials were cut off."""
    return Path(trial.user_attrs[_FOLDER]).name


def _run_next(sweep: Sweep, study: optuna.Study, folder: Path, wanted: int) -> None:
    begun: list[int] = []

    def objective(trial: Trial) -> float:
        begun.append(trial.number)
        return _run(sweep, study, trial, folder)

    try:
        study.optimize(objective, n_trials=1, catch=(TrialFailedError,))
    except (KeyboardInterrupt, TrialRefusedError):
        for number in begun:
            RetryHeartbeatStaleTrialCallback()(study, study.trials[number])
        raise
    for number in begun:
        _tell(f"{_ended(study)} of {wanted} trials done, {_line(sweep, study.trials[number])}")


def _run(sweep: Sweep, study: optuna.Study, trial: Trial, folder: Path) -> float:
    settings = {part.name: part.suggest(trial) for part in sweep.parameters}
    # A trial that is run again goes on in the folder of the first attempt.
    if _FOLDER not in trial.user_attrs:
        trial.set_user_attr(_FOLDER, str(folder / f"trial-{trial.number:04d}"))

    def is_hopeless(block: int, value: float) -> bool:
        trial.report(value, block)
        return trial.should_prune()

    place = Path(trial.user_attrs[_FOLDER])
    _tell(f"{place.name} begins · {_told(settings)}")
    try:
        value = run_trial(sweep.arguments(settings), place, sweep.role, sweep.average, is_hopeless)
    except TrialFailedError as error:
        trial.set_user_attr(_ERROR, str(error))
        raise
    if value is None:
        raise optuna.TrialPruned
    return value


def _settings(sweep: Sweep, trial: FrozenTrial) -> dict[str, Any]:
    again = FixedTrial(trial.params, trial.number)
    return {part.name: part.suggest(again) for part in sweep.parameters}


def _line(sweep: Sweep, trial: FrozenTrial) -> str:
    if trial.state is TrialState.COMPLETE:
        outcome = f"{sweep.objective} {trial.value:.4f}"
    elif trial.state is TrialState.PRUNED:
        outcome = f"stopped after D_{trial.last_step} with {sweep.objective} {trial.value:.4f}"
    else:
        outcome = f"failed: {trial.user_attrs.get(_ERROR)}"
    return f"{_name(trial)}: {outcome} · {_told(_settings(sweep, trial))}"


def _told(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items())


def _tell(line: str) -> None:
    """What is asked for, the best settings, goes to the standard output alone."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Who stops the sweep politely stops its trial too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
