"""No operation of torch within a stream makes a tensor as large as users x items, or as the square of either."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ccd_lightning.backbones import BPRMF, LightGCN
from ccd_lightning.callbacks import DistillationCallback, Recommendations
from ccd_lightning.callbacks.settings import GenerationSettings, GraphSettings
from ccd_lightning.data import ContinualDataModule, SimulatedStream
from ccd_lightning.modules import CollaborativeDistillation, Student, Teacher
from tests.stream.conftest import RunStream

USERS, ITEMS = 6_000, 3_000


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation returns, forwards and backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers, self.operation = 0, ""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            # An expanded view repeats its numbers without holding them.
            if isinstance(tensor, Tensor) and tensor.layout is torch.strided:
                held = tensor.untyped_storage().nbytes() // tensor.element_size()
                if held > self.numbers:
                    self.numbers, self.operation = held, str(func)
        return result


def test_no_step_holds_a_dense_object(tmp_path: Path, run_stream: RunStream) -> None:
    source = SimulatedStream(users=USERS, items=ITEMS, interactions=40_000, blocks=2)
    stream = ContinualDataModule(source)
    least = min(stream.blocks[0].num_users, stream.blocks[0].num_items) ** 2
    system = CollaborativeDistillation(
        Student(LightGCN(4, graph="block")), [Teacher(LightGCN(8)), Teacher(BPRMF(8), clusters=4)]
    )
    distillation = DistillationCallback(
        generation=GenerationSettings(sample=512), graph=GraphSettings(weight=1.0, sample=256)
    )
    with Largest() as largest:
        trainer, _ = run_stream(
            tmp_path,
            system=system,
            source=source,
            distillation=distillation,
            callbacks=(Recommendations(),),
            max_epochs=1,
        )
        trainer.predict(system, datamodule=stream)
    assert trainer.stages_done == 7
    assert 0 < largest.numbers < least, f"{largest.operation} returned {largest.numbers:,} numbers of {least:,}"
