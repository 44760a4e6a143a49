"""A lean loop tells, counts, moves and validates as Lightning's own does, and gives way to it where a model has a say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader

from ccd_lightning import lean

from .regression import STEPS, Regression, batches, fitted, was_lean


class Witness(Callback):
    """Notes what Lightning tells around a step, and what it has counted by then."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._note(trainer, pl_module, "start", batch, batch_idx)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._note(trainer, pl_module, "end", batch, batch_idx, outputs)

    def _note(self, trainer: Any, model: Any, when: str, batch: Any, index: int, outputs: Any = None) -> None:
        values = None if batch is None else batch[0].tolist()
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        counted = trainer.fit_loop.epoch_loop.batch_progress.state_dict()
        self.seen.append((when, index, values, outputs, rates, trainer.global_step, counted, model._current_fx_name))


class Scheduled(Regression):
    """Learning rates that change by steps, by epochs, or by what was validated."""

    def __init__(self, interval: str, on_plateau: bool = False) -> None:
        super().__init__()
        self.interval, self.on_plateau = interval, on_plateau

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        if self.on_plateau:
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)
            return [optimizer], [{"scheduler": plateau, "monitor": "loss", "interval": self.interval}]
        steps = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        return [optimizer], [{"scheduler": steps, "interval": self.interval}]


class WithoutIndex(Regression):
    def training_step(self, batch: list[Tensor]) -> Any:  # type: ignore[override]
        return super().training_step(batch, 0)


class Validated(Regression):
    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.seen.append(("validated", batch_idx, self.trainer.global_step))

    def val_dataloader(self) -> DataLoader[Any]:
        return batches()


class Moved(Regression):
    """Takes part in how batches come to the device."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [2 * part for part in batch]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.seen.append(batch[0].sum().item())
        return batch

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        self.seen.append((device, dataloader_idx))
        return [part + 1 for part in super().transfer_batch_to_device(batch, device, dataloader_idx)]


class LoggedByEpochs(Regression):
    """Logs nothing by steps."""

    def log(self, name: str, value: Any, **options: Any) -> None:
        super().log(name, value, **{"on_step": False, "on_epoch": True, **options})

    def on_train_epoch_end(self) -> None:
        self.log("largest", self.linear.weight.max())


class Gaps(Regression):
    """Some of whose batches are none."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.count = getattr(self, "count", 0) + 1
        return None if self.count % 3 == 0 else batch


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*yielded None")
class TestEpochs:
    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            (Regression, {}),
            (WithoutIndex, {}),
            (lambda: Scheduled("step"), {}),
            (lambda: Scheduled("epoch"), {}),
            (lambda: Scheduled("step", on_plateau=True), {}),
            (lambda: Scheduled("epoch", on_plateau=True), {}),
            (Validated, {}),
            (Validated, {"limit_val_batches": 0}),
            (Validated, {"val_check_interval": 2}),
            (Validated, {"check_val_every_n_epoch": 2}),
            (Validated, {"check_val_every_n_epoch": None, "val_check_interval": 4}),
            (Moved, {}),
            (LoggedByEpochs, {}),
            (Gaps, {}),
            (Regression, {"limit_train_batches": 3}),
        ],
    )
    def test_tell_and_count_as_lightnings_own(
        self, kind: Callable[[], Regression], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        models, witnesses, trainers = [kind(), kind()], [Witness(), Witness()], []
        for lean_steps in (True, False):
            if not lean_steps:
                monkeypatch.setattr(lean, "is_lean", lambda trainer: False)
            trainers.append(fitted(models[len(trainers)], callbacks=[witnesses[len(trainers)]], **options))
        assert [was_lean(trainer) for trainer in trainers] == [True, False]
        assert witnesses[0].seen
        assert witnesses[0].seen == witnesses[1].seen
        assert models[0].seen == models[1].seen
        assert torch.equal(models[0].linear.weight, models[1].linear.weight)
        assert trainers[0].fit_loop.state_dict() == trainers[1].fit_loop.state_dict()
        assert trainers[0].callback_metrics == trainers[1].callback_metrics

    @pytest.mark.parametrize(("kind", "lines"), [(Regression, STEPS + 1), (LoggedByEpochs, 3)])
    def test_loggers_get_the_same_rows(
        self, kind: type[Regression], lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("lean", "plain"):
            if name == "plain":
                monkeypatch.setattr(lean, "is_lean", lambda trainer: False)
            fitted(kind(), logger=CSVLogger(tmp_path, name=name, version=""), log_every_n_steps=2)
        rows = [(tmp_path / name / "metrics.csv").read_text() for name in ("lean", "plain")]
        assert rows[0].count("\n") == lines
        assert rows[0] == rows[1]

    def test_a_model_may_still_end_its_epoch(self) -> None:
        class Tired(Regression):
            def on_train_batch_start(self, batch: Any, batch_idx: int) -> Any:
                return -1 if batch_idx == 2 else None

        trainer = fitted(Tired())
        assert not was_lean(trainer)
        assert trainer.global_step == 2 * 2

    def test_a_model_may_still_fetch_its_batches_itself(self) -> None:
        class Fetching(Regression):
            def training_step(self, dataloader_iter: Any) -> Any:  # type: ignore[override]
                (inputs, targets), _, _ = next(dataloader_iter)
                return torch.nn.functional.mse_loss(self.linear(inputs), targets)

        plain, fetching = Regression(), Fetching()
        fitted(plain)
        assert not was_lean(fitted(fetching))
        assert torch.equal(plain.linear.weight, fetching.linear.weight)

    def test_a_model_may_still_optimise_by_hand(self) -> None:
        class ByHand(Regression):
            def __init__(self) -> None:
                super().__init__()
                self.automatic_optimization = False

            def training_step(self, batch: Any, batch_idx: int) -> Any:
                loss = super().training_step(batch, batch_idx)
                optimizer: Any = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()

        plain, by_hand = Regression(), ByHand()
        fitted(plain)
        assert not was_lean(fitted(by_hand))
        assert torch.equal(plain.linear.weight, by_hand.linear.weight)

    @pytest.mark.filterwarnings("ignore:.*that ended before the epoch ended", "ignore:Be aware that when using")
    @pytest.mark.parametrize("done", [STEPS - 2, STEPS, STEPS + 2])
    @pytest.mark.parametrize("kind", [Regression, Validated])
    def test_a_fit_goes_on_as_lightnings_own(
        self, kind: type[Regression], done: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=done, save_top_k=-1)
        fitted(kind(), callbacks=[saving], enable_checkpointing=True)
        models, trainers = [kind(), kind()], []
        for model in models:
            trainers.append(fitted(model, ckpt_path=tmp_path / f"step={done}.ckpt"))
            monkeypatch.setattr(lean, "is_lean", lambda trainer: False)
        assert [was_lean(trainer) for trainer in trainers] == [True, False]
        assert models[0].seen == models[1].seen
        assert torch.equal(models[0].linear.weight, models[1].linear.weight)
        assert trainers[0].global_step == trainers[1].global_step
        assert trainers[0].fit_loop.state_dict() == trainers[1].fit_loop.state_dict()
