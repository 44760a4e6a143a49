"""Continual collaborative distillation for recommender systems on PyTorch Lightning.

The main names can be imported from here; each is loaded when it is first asked for, so that importing the package is cheap.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

_HOMES = {
    "CollaborativeDistillation": "ccd_lightning.modules",
    "ContinualDataModule": "ccd_lightning.data",
    "DistillationCallback": "ccd_lightning.callbacks",
    "StreamCheckpoint": "ccd_lightning.callbacks",
    "StreamPlan": "ccd_lightning.plan",
    "StreamTrainer": "ccd_lightning.trainer",
    "Student": "ccd_lightning.modules",
    "Teacher": "ccd_lightning.modules",
}

__all__ = ["__version__", *_HOMES]
__version__ = version("ccd-lightning")


def __getattr__(name: str) -> Any:
    """Load a main name from where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
