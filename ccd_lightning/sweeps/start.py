"""The configuration's own values: the first trial, so that no sweep ends below its start."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf

from ccd_lightning.config_files import holder
from ccd_lightning.sweeps.file import Sweep
from ccd_lightning.sweeps.trial import USER_ERROR, TrialRefusedError

PATIENCE = 120.0
"""Seconds that the trials' program has to tell its configuration."""


def own_values(sweep: Sweep) -> dict[str, Any]:
    """What the trials' program takes for the parameters of a sweep where nobody varies them.

    Args:
        sweep: what is tried.

    Returns:
        Parameter -> value as Optuna takes it, for the parameters that have several.

    Raises:
        MisconfigurationException: if the program does not tell a value, or the sweep would never draw it.
        TrialRefusedError: if the program does not take what the sweep gives it.
    """
    constants = {part.name: part.values[0] for part in sweep.parameters if len(part.values) == 1}
    config = _printed(sweep, constants)
    found = {}
    for part in sweep.parameters:
        if len(part.values) != 1:
            try:
                value = _look_up(config, part.name)
            except MisconfigurationException:
                # The program itself tells a mistyped option, and what was probably meant.
                _printed(sweep, {**constants, part.name: part.values[0] if part.values else part.low})
                raise
            found[part.name] = part.encoded(value)
    return found


def _printed(sweep: Sweep, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The program resolves its files and defaults by itself; reading them here would be a second way to do so."""
    command = [*sweep.arguments(settings), "--print_config"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        config: Any = OmegaConf.to_container(OmegaConf.create(done.stdout), resolve=True)
    except Exception as error:
        words = str(getattr(error, "stderr", None) or error).strip().splitlines() or [type(error).__name__]
        if getattr(error, "returncode", None) == USER_ERROR:
            raise TrialRefusedError(f"No trial can begin: {words[-1].removeprefix('error: ')}") from error
        raise MisconfigurationException(
            f"{sweep.program} does not tell its configuration ({words[-1]}): let it take `--print_config`."
        ) from error
    return config if isinstance(config, Mapping) else {}


def _look_up(config: Any, name: str) -> Any:
    """The value of a dotted option, which may leave ``init_args`` out.

    >>> _look_up({"data": {"class_path": "Log", "init_args": {"core": 5}}}, "data.core")
    5
    """
    for key in name.split("."):
        place = holder(config, key)
        if place is None:
            raise MisconfigurationException(f"the configuration has no `{name}`: name an option of it.")
        config = place[key]
    return config
