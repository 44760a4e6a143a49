"""A small model, and fits of it whose steps are lean unless somebody takes part in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from ccd_lightning.lean import LeanEpochLoop
from ccd_lightning.trainer import StreamTrainer

STEPS = 6


class Regression(LightningModule):
    """Least squares with a step that may return whatever Lightning allows."""

    def __init__(self, returned: str = "tensor", optimizer: type[Optimizer] = torch.optim.Adam) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 1)
        torch.nn.init.constant_(self.linear.weight, 0.5)
        torch.nn.init.zeros_(self.linear.bias)
        self.returned, self.optimizer = returned, optimizer
        self.seen: list[Any] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        inputs, targets = batch
        loss = torch.nn.functional.mse_loss(self.linear(inputs), targets)
        before = self.linear.weight.grad
        self.seen.append(None if before is None else before.tolist())
        self.log("loss", loss)
        if self.returned == "sometimes none":
            return None if batch_idx % 2 else loss
        return {"loss": loss, "further": batch_idx} if self.returned == "dict" else loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(outputs)

    def configure_optimizers(self) -> Optimizer:
        return self.optimizer(self.parameters(), lr=0.1)  # type: ignore[call-arg]


def batches() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(8 * STEPS, 3, generator=generator)
    return DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), batch_size=8)


def fitted(model: LightningModule, ckpt_path: Path | None = None, **options: Any) -> StreamTrainer:
    trainer = StreamTrainer(
        accelerator="cpu", enable_progress_bar=False, max_epochs=2, **{"logger": False, "callbacks": None, **options}
    )
    trainer.fit(model, batches(), ckpt_path=ckpt_path, weights_only=True)
    return trainer


def was_lean(trainer: StreamTrainer) -> bool:
    epochs = trainer.fit_loop.epoch_loop
    assert isinstance(epochs, LeanEpochLoop)
    return epochs._lean
