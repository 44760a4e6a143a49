"""The student as files that need no ccd-lightning to be used."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ccd_lightning.backbones import Backbone
from ccd_lightning.data import IdMap, Stream

FILES = ("student.safetensors", "users.parquet", "items.parquet", "README.md")
"""What an export consists of, beside its manifest."""

README = """# A student recommender

Embeddings of users and items whose inner products are scores, exported by ccd-lightning after block {block}.

```python
import json, numpy, polars
from safetensors.numpy import load_file

tensors = load_file("student.safetensors")
users, items = polars.read_parquet("users.parquet"), polars.read_parquet("items.parquet")
user = users.filter(polars.col("raw") == {example!r})["id"].item()
scores = tensors["users"][user] @ tensors["items"].T
best = numpy.argsort(-scores)[:20]
print(items["raw"].gather(best).to_list(), scores[best])
```

`manifest.json` names the sizes and the SHA-256 of every file.
"""


@torch.no_grad()
def export_student(backbone: Backbone, stream: Stream, folder: Path) -> dict[str, Any]:
    """Write a student's final embeddings, the id maps, a manifest with checksums and a README.

    The folder appears whole or not at all; an earlier export at the same place is replaced.

    Args:
        backbone: the student, with embeddings.
        stream: the data that it was trained on.
        folder: where the export shall stand.

    Returns:
        The manifest.

    Raises:
        MisconfigurationException: if the model is no product of embeddings, the folder holds something else than an export,
            or it cannot be written.
    """
    found = backbone.embeddings()
    if found is None:
        raise MisconfigurationException(
            f"{type(backbone).__name__} has no embeddings, and the export holds embeddings: give the student an embedding backbone."
        )
    _require_replaceable(folder)
    draft = folder.absolute().with_name(f"{folder.absolute().name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        manifest = _write_files(backbone, found, stream, draft)
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)
    except (OSError, SafetensorError) as error:
        raise MisconfigurationException(
            f"The export {folder} could not be written ({error}): see that the folder can be written to and has room, or name"
            " another one with `--output`."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def _require_replaceable(folder: Path) -> None:
    """Whatever is no export is the user's, and stays."""
    if not folder.exists():
        return
    inside = {path.name for path in folder.iterdir()} if folder.is_dir() else {"a file"}
    strange = sorted(inside - {*FILES, "manifest.json"})
    if strange:
        raise MisconfigurationException(
            f"{folder} is there already and no export (it holds {', '.join(strange[:3])}), and would be replaced as a whole:"
            " name a folder that is new, empty or an earlier export with `--output`."
        )


def _write_files(backbone: Backbone, found: tuple[Tensor, Tensor], stream: Stream, draft: Path) -> dict[str, Any]:
    tensors: dict[str, Tensor] = {
        name: table.detach().float().cpu().contiguous() for name, table in zip(("users", "items"), found, strict=True)
    }
    save_file(tensors, draft / "student.safetensors")
    for name, ids, count in (("users", stream.users, backbone.num_users), ("items", stream.items, backbone.num_items)):
        IdMap(ids.raw.head(count)).save(draft / f"{name}.parquet")
    example = stream.users.decode(torch.tensor([0]))[0]
    (draft / "README.md").write_text(README.format(block=backbone.known_block, example=example), encoding="utf-8")
    manifest = {
        "format": 1,
        "block": backbone.known_block,
        "backbone": type(backbone).__name__,
        "num_users": backbone.num_users,
        "num_items": backbone.num_items,
        "dim": tensors["users"].shape[1],
        "bytes": sum(table.nbytes for table in tensors.values()),
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(draft.iterdir())},
    }
    (draft / "manifest.json").write_text(json.dumps(manifest, indent=2))
    return manifest
