"""The README of an export, with examples that can be run in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HEAD = """# A recommender

The {role} ({backbone}) of a stream after block {block}: {num_users} users, {num_items} items. Exported by ccd-lightning, which is
not needed to use it. Users and items are numbers, the rows of `users.parquet` and `items.parquet`.
"""

_ONNX = """
## Recommend

With numpy and onnxruntime:

```python
import numpy
import onnxruntime

model = onnxruntime.InferenceSession("{role}.onnx")
users = numpy.array([0, 1])
exclude = numpy.array([[0, 2], [1, -1]])  # items that each user must not get; -1 is padding
items, scores = model.run(None, {{"users": users, "k": numpy.array({k}), "exclude": exclude}})
print(items.tolist(), scores.tolist())  # best first; a score of -inf: only excluded items were left
```
"""

_RAW = """
The same in raw ids{without_seen}, with polars besides:

```python
import numpy
import onnxruntime
import polars

model = onnxruntime.InferenceSession("{role}.onnx")
users, items = polars.read_parquet("users.parquet"), polars.read_parquet("items.parquet")
user = users.filter(polars.col("raw") == {example!r})["id"].item()
{exclude}
best, scores = model.run(None, {{"users": numpy.array([user]), "k": numpy.array({k}), "exclude": exclude}})
print(items["raw"].gather(best[0]).to_list(), scores[0].tolist())
```
"""

_SEEN = """seen = polars.read_parquet("seen.parquet").filter(polars.col("user") == user)["item"]
exclude = seen.to_numpy().astype("int64").reshape(1, -1)"""
_NOTHING = 'exclude = numpy.empty((1, 0), "int64")'

_FACTORS = """
## Scores by hand

Scores are products of rows; with numpy, polars and safetensors:

```python
import numpy, polars
from safetensors.numpy import load_file

tensors = load_file("{role}.safetensors")
users, items = polars.read_parquet("users.parquet"), polars.read_parquet("items.parquet")
user = users.filter(polars.col("raw") == {example!r})["id"].item()
scores = tensors["items"] @ tensors["users"][user] + tensors.get("offsets", 0)
best = numpy.argsort(-scores)[:{k}]
print(items["raw"].gather(best).to_list(), scores[best])
```
"""

_FILES = """
## Files

| file | what |
|---|---|
{files}
| `manifest.json` | sizes, the SHA-256 of every other file, and what is missing and why |
{missing}
`.onnx`, `.safetensors` and `.parquet` are data: reading them runs nothing. `torch.export.load` trusts its file, so load a
`.pt2` only from people whose code you would run.
"""

_DESCRIPTIONS = {
    ".onnx": "top items: inputs `users` (B,), `k` (a scalar) and `exclude` (B, E), outputs `items` (B, k) and `scores` (B, k)",
    ".pt2": "the same for `torch.export.load(...).module()(users, k, exclude)`, int64 tensors",
    ".safetensors": "the numbers of the model",
    "users.parquet": "raw ids of users (`raw`) and their numbers (`id`)",
    "items.parquet": "raw ids of items and their numbers",
    "seen.parquet": "what each user has interacted with in the data that was learned: `user`, `item`, both numbers",
    "popular.parquet": "all items by their interactions in the last block: `item` (a number), `count`",
}


def readme(manifest: Mapping[str, Any], example: str | int, files: list[str]) -> str:
    """The README's text.

    Args:
        manifest: the export's manifest.
        example: a raw id of a user.
        files: names of the files that are there.
    """
    has_seen = "seen.parquet" in files
    values = {
        **manifest,
        "k": min(20, manifest["num_items"]),
        "example": example,
        "without_seen": " and without what the user has seen" if has_seen else "",
        "exclude": _SEEN if has_seen else _NOTHING,
        "files": "\n".join(f"| `{name}` | {_description(name)} |" for name in files),
        "missing": "".join(f"\nWithout `{name}`: {reason}\n" for name, reason in manifest["missing"].items()),
    }
    has_onnx = f"{manifest['role']}.onnx" in files
    parts = [_HEAD, *((_ONNX, _RAW) if has_onnx else ()), *((_FACTORS,) if manifest["dim"] else ()), _FILES]
    return "".join(part.format(**values) for part in parts)


def _description(name: str) -> str:
    return next(text for ending, text in _DESCRIPTIONS.items() if name.endswith(ending))
