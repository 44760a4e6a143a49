from __future__ import annotations

import pytest
from lightning.pytorch.profilers import SimpleProfiler

from ccd_lightning.trainer import StreamTrainer
from ccd_lightning.unprofiled import Unprofiled


def test_nobody_profiles_unless_asked() -> None:
    assert isinstance(StreamTrainer(accelerator="cpu", logger=False).profiler, Unprofiled)
    assert isinstance(StreamTrainer(accelerator="cpu", logger=False, profiler="simple").profiler, SimpleProfiler)


def test_errors_pass_through() -> None:
    with pytest.raises(KeyError, match="lost"), Unprofiled().profile("a hook"):
        raise KeyError("lost")
