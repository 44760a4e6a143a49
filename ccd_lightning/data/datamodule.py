"""The stream as a LightningDataModule: it knows which blocks the present stage learns from and is judged on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import torch
from lightning.pytorch import LightningDataModule
from typing_extensions import override

from ccd_lightning.data.blocks import Stream, build_stream
from ccd_lightning.data.history import History
from ccd_lightning.data.id_map import IdMap
from ccd_lightning.data.loader import EvaluationLoader, StageLoader, UserLoader
from ccd_lightning.data.tables import read_table
from ccd_lightning.types import Block, Split

if TYPE_CHECKING:
    from ccd_lightning.data.sources import StreamSource


class ContinualDataModule(LightningDataModule):
    """Emits the time blocks of a stream.

    The training batches of a stage are those that the learning module's objectives ask for; evaluation always ranks the full
    catalogue.

    Args:
        source: where the interactions come from.
        seed: seed of the run; sampling depends on (seed, model, block, stage, epoch) alone.
        max_blocks: read only this many blocks; ``None`` reads all of them.
        evaluation_batch: users scored at a time.
    """

    def __init__(
        self, source: StreamSource, seed: int = 0, max_blocks: int | None = None, evaluation_batch: int = 512
    ) -> None:
        super().__init__()
        for name, value in (("max_blocks", max_blocks), ("evaluation_batch", evaluation_batch)):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` is {value}, but must be at least 1: pass a positive number.")
        self.source, self.seed, self.max_blocks, self.evaluation_batch = source, seed, max_blocks, evaluation_batch
        self._stream: Stream | None = None
        self._histories: dict[int, History] = {}
        self._loaders: dict[tuple[tuple[int, ...], Split, Split | None], EvaluationLoader] = {}
        self.valid_blocks: tuple[int, ...] = (0,)
        self.test_blocks: tuple[int, ...] = (0,)
        self.test_beside: Split | None = None
        self.predict_users = torch.empty(0, dtype=torch.long)

    @property
    def stream(self) -> Stream:
        """The blocks and the id maps, read once."""
        if self._stream is None:
            self._stream = build_stream(self.source.table(), self.source.describe())
        return self._stream

    @property
    def blocks(self) -> list[Block]:
        """The time blocks D_0, D_1, ..."""
        return self.stream.blocks[: self.max_blocks]

    @property
    def validates(self) -> bool:
        """Whether any of the blocks to validate on asks somebody."""
        return any(self.blocks[index].valid.size for index in self.valid_blocks)

    def history(self, block: int) -> History:
        """What a model that meets D_k may look back on."""
        if block not in self._histories:
            # A stage looks at the present block and the one before; older histories would hold copies of the stream.
            self._histories = {index: kept for index, kept in self._histories.items() if index >= block - 1}
            self._histories[block] = History(tuple(self.blocks[: block + 1]))
        return self._histories[block]

    def choose_users(self, num_known: int, path: str | None = None) -> None:
        """Decide for whom predictions are made.

        Args:
            num_known: users whom the model knows.
            path: a table whose column ``user`` names them by raw id, repeats allowed; ``None`` chooses all whom the model knows.

        Raises:
            ValueError: if the table cannot be read or names somebody whom the model does not know.
        """
        self.predict_users = torch.arange(num_known)
        if path is None:
            return
        table = read_table(Path(path), option="`--users`")
        if "user" not in table.columns:
            raise ValueError(
                f"{path} has the columns {', '.join(table.columns)}, but needs `user`: rename the one of raw ids."
            )
        known = IdMap(self.stream.users.raw.head(num_known))
        users = table["user"].drop_nulls()
        if known.raw.dtype == pl.String and users.dtype.is_integer():
            # A few string ids may all look like integers where those of the whole stream do not: 100 beside 007.
            users = users.cast(pl.String)
        self.predict_users = torch.unique(known.encode(users, path))

    @override
    def train_dataloader(self) -> StageLoader:
        module: Any = self.trainer.lightning_module if self.trainer else None
        return StageLoader(module.epoch_batches())

    @override
    def val_dataloader(self) -> EvaluationLoader:
        return self._evaluation(self.valid_blocks, Split.VALID)

    @override
    def test_dataloader(self) -> EvaluationLoader:
        return self._evaluation(self.test_blocks, Split.TEST, self.test_beside)

    @override
    def predict_dataloader(self) -> UserLoader:
        return UserLoader(self.predict_users, self.evaluation_batch)

    @override
    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Batches of training lie there already, an epoch at a time."""
        first = batch if isinstance(batch, torch.Tensor) else batch[0]
        return batch if first.device == device else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _evaluation(self, blocks: tuple[int, ...], split: Split, beside: Split | None = None) -> EvaluationLoader:
        asked = (blocks, split, beside)
        if asked not in self._loaders:
            self._loaders = {key: loader for key, loader in self._loaders.items() if key[1] is not split}
            chosen = [self.blocks[index] for index in blocks]
            self._loaders[asked] = EvaluationLoader(chosen, split, self.evaluation_batch, beside)
        return self._loaders[asked]
