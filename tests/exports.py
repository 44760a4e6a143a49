"""Models that have met a small stream, and exports of them."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch import Tensor

from ccd_lightning.backbones import BPRMF, Backbone
from ccd_lightning.data import ContinualDataModule
from ccd_lightning.export import export_model
from ccd_lightning.types import RankingBatch, Side
from tests.callbacks.conftest import NamedStream


class Biased(Backbone):
    """A user's own backbone, which has no embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.add_rows("users", Side.USER, 4)
        self.add_rows("items", Side.ITEM, 4)
        self.add_rows("popularity", Side.ITEM)

    def scores(self, users: Tensor) -> Tensor:
        return self.users[users] @ self.items.T + self.popularity

    def loss(self, batch: RankingBatch) -> Tensor:
        raise NotImplementedError


class Untraceable(Biased):
    """Its shapes come from Python numbers, which no program can follow."""

    def scores(self, users: Tensor) -> Tensor:
        return torch.stack([super(Untraceable, self).scores(users)[row] for row in range(len(users.tolist()))])


class Wrong(BPRMF):
    """Its scores are no products of its embeddings."""

    def scores(self, users: Tensor) -> Tensor:
        return super().scores(users) + 1


@cache
def stream() -> ContinualDataModule:
    return ContinualDataModule(NamedStream(users=90, items=60, interactions=1300, blocks=3))


def met(model: Backbone, seed: int = 0) -> Any:
    """A model that has met every block, with rows drawn so wide that no two scores are close."""
    generator = torch.Generator().manual_seed(seed)
    for block in stream().blocks:
        model.meet(stream().history(block.index), "random", 20, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.eval()


@cache
def student() -> BPRMF:
    return met(BPRMF(4))


@cache
def exported() -> Path:
    """An export of :func:`student`, to be read or copied."""
    folder = Path(mkdtemp(prefix="ccd-export-")) / "export"
    export_model(student(), stream().stream, folder)
    return folder


def sign(folder: Path, **changes: Any) -> None:
    """Bring the manifest's checksums in line with the files, as whoever changes an export on purpose would."""
    path = folder / "manifest.json"
    manifest = {**json.loads(path.read_text()), **changes}
    manifest["sha256"] = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir() if file != path
    }
    path.write_text(json.dumps(manifest))
