"""Top-K recommendations in the ids of the user's own data."""

from __future__ import annotations

import glob
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from ccd_lightning.data import ContinualDataModule, PairSet, Stream
from ccd_lightning.distributed import process_rank, world_size
from ccd_lightning.modules import CollaborativeDistillation

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetWriter

PART = b"ccd_lightning.part"
"""Key of the metadata by which a file of a further process is told from a copy with a number in its name."""


class Recommendations(Callback):
    """Writes the student's best items for every user that `trainer.predict` scores, as Parquet.

    Columns: ``user`` and ``item`` in raw ids of the data's own type, ``rank`` (int32, 1 is the best) and ``score``
    (float32); users in order of appearance, their items best first. The file appears when the last user is done. With
    several processes, process r > 0 writes ``<name>-<r>.parquet`` beside it; no user is in two files, and files of an earlier
    prediction with more processes are removed.

    Args:
        k: items a user; a user who has seen nearly everything gets fewer.
        exclude_seen: leave out what the user has interacted with in the train splits that the student has learned.
        path: file to write; ``recommendations.parquet`` in the run's folder by default.
    """

    def __init__(self, k: int = 20, exclude_seen: bool = True, path: str | None = None) -> None:
        if k < 1:
            raise ValueError(f"`k` is {k}, but a recommendation has at least 1 item: pass 1 or more.")
        self.k, self.exclude_seen, self.path = k, exclude_seen, path
        self._seen: PairSet | None = None
        self._stream: Stream | None = None
        self._writer: ParquetWriter | None = None
        self._draft = Path()

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look up what users have seen and open the file."""
        if not isinstance(pl_module, CollaborativeDistillation):
            return
        stream, backbone = _stream_of(trainer), pl_module.student.backbone
        if self.k > backbone.num_items:
            raise ValueError(
                f"`k` is {self.k}, but the student knows {backbone.num_items} items: ask for at most as many, or pass"
                " the `ckpt_path` of a trained stream."
            )
        if self.exclude_seen:
            self._seen = stream.history(backbone.known_block).observed("cumulative").to(pl_module.device)
        target = self.target(trainer)
        if target.is_dir():
            raise ValueError(
                f"The recommendations' `path` is {target}, a folder: name a file, such as {target / 'top.parquet'}."
            )
        self._stream = stream.stream
        self._open(target)

    @override
    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the users of a batch."""
        if self._writer is not None:
            self._writer.write_table(self._rows(batch, *self._best(batch, outputs)).to_arrow())

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the file appear."""
        if self._writer is None:
            return
        self._writer.close()
        target = self.target(trainer)
        self._draft.replace(target)
        self._forget()
        if trainer.is_global_zero:
            self._remove_older(target)
            print(f"The recommendations are in {target}.")

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing half-written."""
        if self._stream is not None:
            # On a full disk opening and closing fail too.
            with suppress(OSError):
                if self._writer is not None:
                    self._writer.close()
            with suppress(OSError):
                self._draft.unlink(missing_ok=True)
            self._forget()

    def target(self, trainer: Trainer) -> Path:
        """The file of this process."""
        path = Path(self.path) if self.path else Path(trainer.default_root_dir) / "recommendations.parquet"
        rank = process_rank()
        return path.with_name(f"{path.stem}-{rank}{path.suffix}") if rank else path

    def _remove_older(self, target: Path) -> None:
        """Whoever reads all the files together would find users twice; files of the user's may have similar names."""
        for path in target.parent.glob(f"{glob.escape(target.stem)}-*{glob.escape(target.suffix)}"):
            number = path.stem.removeprefix(f"{target.stem}-")
            if number.isdecimal() and int(number) >= world_size() and _is_part(path):
                path.unlink()

    def _open(self, target: Path) -> None:
        # Only a prediction needs pyarrow, so that importing the callbacks stays fast.
        from pyarrow.parquet import ParquetWriter

        target.parent.mkdir(parents=True, exist_ok=True)
        # Another prediction into the same file must not write into this one's draft.
        self._draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        nobody = torch.empty(0, dtype=torch.long)
        schema = self._rows(nobody, torch.empty(0, self.k), torch.empty(0, self.k, dtype=torch.long)).to_arrow().schema
        if process_rank():
            schema = schema.with_metadata({**(schema.metadata or {}), PART: b""})
        self._writer = ParquetWriter(self._draft, schema)

    def _best(self, users: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and items of the top K without what was seen, both ``(B, k)``; -inf where nothing is left."""
        if self._seen is not None:
            scores = scores.index_put(self._seen.of(users), scores.new_tensor(-torch.inf))
        values, items = scores.nan_to_num(nan=-torch.inf, neginf=-torch.inf).topk(self.k)
        return values.float().cpu(), items.cpu()

    def _rows(self, users: Tensor, values: Tensor, items: Tensor) -> pl.DataFrame:
        assert self._stream is not None
        present = values > -torch.inf
        ranks = torch.arange(1, self.k + 1, dtype=torch.int32).expand_as(items)
        owners = users.cpu().unsqueeze(1).expand_as(items)
        return pl.DataFrame(
            {
                "user": self._stream.users.decode(owners[present]),
                "rank": ranks[present].numpy(),
                "item": self._stream.items.decode(items[present]),
                "score": values[present].numpy(),
            }
        )

    def _forget(self) -> None:
        self._seen = self._stream = self._writer = None


def _is_part(path: Path) -> bool:
    """Whether a process of a prediction has written a file."""
    from pyarrow.parquet import read_schema

    try:
        return PART in (read_schema(path).metadata or {})
    except (OSError, ValueError):
        return False


def _stream_of(trainer: Trainer) -> ContinualDataModule:
    stream: Any = getattr(trainer, "datamodule", None)
    if not isinstance(stream, ContinualDataModule):
        raise ValueError(
            f"Recommendations need the stream's ids, but `datamodule` is {type(stream).__name__}: pass the"
            " ContinualDataModule to `predict`."
        )
    return stream
