"""The file of a W&B sweep."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf

from ccd_lightning.record import ROLES
from ccd_lightning.reporting import AVERAGES
from ccd_lightning.sweeps.space import Parameter, read_parameter

METHODS = ("random", "grid", "bayes")
GOALS = ("maximize", "minimize")
STOPPERS = ("hyperband", "median")
"""W&B knows the first one alone."""

_KEYS = (
    *("program", "command", "method", "metric", "parameters", "early_terminate", "run_cap", "name"),
    # These speak to W&B alone.
    *("description", "project", "entity", "controller", "apiVersion", "kind"),
)
_OBJECTIVE = re.compile(rf"stream/({'|'.join(ROLES)})/({'|'.join(AVERAGES)})")


@dataclass(frozen=True)
class Sweep:
    """What is tried, and what counts.

    Args:
        name: of the sweep; by default the file's.
        program: Python file that a trial runs.
        command: arguments of a trial with W&B's placeholders; empty for W&B's own default.
        method: how settings are drawn.
        role: whose average counts.
        average: which one.
        goal: whether it shall be large or small.
        parameters: what is varied.
        early_terminate: when a trial is stopped before its last block; empty for never.
        run_cap: trials at most, if the file says so.
    """

    name: str
    program: str
    command: tuple[str, ...]
    method: str
    role: str
    average: str
    goal: str
    parameters: tuple[Parameter, ...]
    early_terminate: Mapping[str, Any] = field(default_factory=dict)
    run_cap: int | None = None

    @property
    def objective(self) -> str:
        """The metric's name among all that is logged."""
        return f"stream/{self.role}/{self.average}"

    def arguments(self, settings: Mapping[str, Any]) -> list[str]:
        """The command line of a trial, put together as an agent of W&B does it.

        Args:
            settings: dotted option -> value.
        """
        from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

        values = create_sweep_command_args({"args": {name: {"value": value} for name, value in settings.items()}})
        values |= {"env": [], "interpreter": [sys.executable], "program": [self.program]}
        arguments: list[str] = []
        for part in map(str, create_sweep_command(list(self.command))):
            placeholder = re.fullmatch(r"\$\{(\w+)\}", part)
            arguments += values.get(placeholder[1], []) if placeholder else [part]
        return arguments


def read_sweep(path: Path) -> Sweep:
    """Read the file of a sweep.

    Raises:
        MisconfigurationException: naming the file and what is wrong with it.
    """
    content = _load(path)
    for key in content:
        if key not in _KEYS:
            raise _mistake(path, f"has `{key}`", f"expected are {', '.join(_KEYS)}")
    _require_word(path, "method", content.get("method"), METHODS)
    metric = _mapping(path, content, "metric")
    found = _OBJECTIVE.fullmatch(str(metric.get("name")))
    if not found:
        raise _mistake(path, f"has the metric {metric.get('name')!r}", "expected is one such as stream/student/H")
    goal = metric.get("goal", "minimize")
    _require_word(path, "goal", goal, GOALS)
    parameters = _mapping(path, content, "parameters")
    if not parameters:
        raise _mistake(
            path, "has no `parameters`", "expected is at least one dotted option, such as model.fusion_power"
        )
    return Sweep(
        name=str(content.get("name") or path.stem),
        program=str(content.get("program", "train.py")),
        command=tuple(content.get("command") or ()),
        method=content["method"],
        role=found[1],
        average=found[2],
        goal=goal,
        parameters=tuple(read_parameter(str(name), value) for name, value in parameters.items()),
        early_terminate=_stopping(path, content),
        run_cap=_whole(path, content, "run_cap"),
    )


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MisconfigurationException(
            f"The sweep {path} does not exist: pass a file, such as `--config configs/sweep.yaml`."
        )
    try:
        # Placeholders such as ${args} are W&B's, and stay.
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:
        raise _mistake(path, f"cannot be read ({' '.join(str(error).split())})", "expected is YAML") from error
    if not isinstance(content, dict):
        raise _mistake(path, "holds no mapping", "expected are keys such as `method` and `parameters`")
    return content


def _stopping(path: Path, content: Mapping[str, Any]) -> Mapping[str, Any]:
    stopping = _mapping(path, content, "early_terminate")
    if not stopping:
        return {}
    _require_word(path, "early_terminate.type", stopping.get("type"), STOPPERS)
    least = _whole(path, stopping, "min_iter")
    most, steps = _whole(path, stopping, "max_iter"), _whole(path, stopping, "s")
    factor = _whole(path, {"eta": 3, **stopping}, "eta") or 3
    if least is None and (most is None or steps is None):
        raise _mistake(path, "has no `early_terminate.min_iter`", "expected is a number of blocks, such as 2")
    if factor < 2:
        raise _mistake(path, f"has the `eta` {factor}", "expected is 2 or more")
    # W&B trims after max_iter / eta^s blocks first, which is the same with other words.
    first = least if least is not None else max(1, int((most or 1) / factor ** (steps or 0)))
    return {"type": stopping["type"], "min_iter": first, "eta": factor}


def _mapping(path: Path, content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = content.get(key) or {}
    if not isinstance(found, Mapping):
        raise _mistake(path, f"has `{key}: {found}`", "expected is a mapping of keys to values")
    return found


def _whole(path: Path, content: Mapping[str, Any], key: str) -> int | None:
    value = content.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise _mistake(path, f"has `{key}: {value}`", "expected is a whole number of 1 or more")
    return value


def _require_word(path: Path, key: str, found: Any, known: tuple[str, ...]) -> None:
    if found not in known:
        raise _mistake(path, f"has `{key}: {found}`", f"expected is one of {', '.join(known)}")


def _mistake(path: Path, found: str, expected: str) -> MisconfigurationException:
    return MisconfigurationException(
        f"The sweep {path} {found}, but {expected}: mend it; configs/sweep.yaml shows the form."
    )
