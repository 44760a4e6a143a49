"""The configuration's own values: the first trial, so that no sweep ends below its start."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf

from ccd_lightning.sweeps.file import Sweep

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
    """
    config = _printed(sweep)
    found = {}
    for part in sweep.parameters:
        if len(part.values) != 1:
            found[part.name] = part.encoded(_look_up(config, part.name))
    return found


def _printed(sweep: Sweep) -> Mapping[str, Any]:
    """The program resolves its files and defaults by itself; reading them here would be a second way to do so."""
    constants = {part.name: part.values[0] for part in sweep.parameters if len(part.values) == 1}
    command = [*sweep.arguments(constants), "--print_config"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        config: Any = OmegaConf.to_container(OmegaConf.create(done.stdout), resolve=True)
    except Exception as error:
        words = str(getattr(error, "stderr", None) or error).strip().splitlines() or [type(error).__name__]
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
        inner = config.get("init_args") if isinstance(config, Mapping) else None
        place = inner if isinstance(inner, Mapping) and key in inner else config
        if not isinstance(place, Mapping) or key not in place:
            raise MisconfigurationException(f"the configuration has no `{name}`: name an option of it.")
        config = place[key]
    return config
