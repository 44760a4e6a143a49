"""From a table of raw interactions to time blocks in contiguous ids."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl

from ccd_lightning.data.id_map import IdMap
from ccd_lightning.data.tables import narrowed
from ccd_lightning.data.validation import checked_table
from ccd_lightning.types import Block, Interactions, Split


@dataclass(frozen=True)
class Stream:
    """All the blocks that a source holds at present.

    Args:
        blocks: D_0, D_1, ... in order.
        users: raw and contiguous ids of the users known after the last block.
        items: the same of the items.
        cold_users: for each block, how many users of its valid and test splits have no train interaction up to then.
            Such users are known (they have ids and embedding rows), yet nothing was ever learned about them; they are
            common in real streams, so they are counted and kept.
    """

    blocks: list[Block]
    users: IdMap
    items: IdMap
    cold_users: list[int]

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def repeats_dropped(self) -> int:
        """How many repeated (user, item) pairs inside one split of a block were dropped, over all blocks."""
        return sum(block.repeats_dropped for block in self.blocks)

    @property
    def fingerprints(self) -> list[str]:
        """One digest a block; what `check_same_blocks` compares when a run is resumed."""
        return [block.fingerprint for block in self.blocks]


def build_stream(table: pl.DataFrame, origin: str) -> Stream:
    """Check a table, number its entities by first appearance and cut it into blocks.

    Args:
        table: columns ``user``, ``item``, ``block`` and ``split``, as `StreamSource.table` returns it.
        origin: what error messages call the table.

    Raises:
        ValueError: if the table is not what `StreamSource.table` promises.

    Example:
        >>> rows = [(7, "tea", 0, "train"), (7, "tea", 0, "train"), (3, "rye", 0, "train"), (3, "tea", 1, "train")]
        >>> stream = build_stream(pl.DataFrame(rows, schema=["user", "item", "block", "split"], orient="row"), "rows")
        >>> [(block.num_users, block.num_items, block.repeats_dropped) for block in stream.blocks]
        [(2, 2, 1), (2, 2, 0)]
    """
    blocks: list[Block] = []
    users, items = IdMap(), IdMap()
    for index, part in enumerate(checked_table(table, origin).partition_by("block", maintain_order=True)):
        old = len(users), len(items)
        users, items = users.extend(part["user"], origin), items.extend(part["item"], origin)
        splits = {split: _interactions(part, split, users, items) for split in Split}
        blocks.append(
            Block(
                index=index,
                num_users=len(users),
                num_items=len(items),
                num_old_users=old[0],
                num_old_items=old[1],
                train=splits[Split.TRAIN],
                valid=splits[Split.VALID],
                test=splits[Split.TEST],
                repeats_dropped=part.height - sum(split.size for split in splits.values()),
                fingerprint=fingerprint(part),
            )
        )
    return Stream(blocks, users, items, _cold_users(blocks))


def fingerprint(part: pl.DataFrame) -> str:
    """SHA-256 of a block's raw ids and splits in row order, whatever file or type they came from.

    Ids that are all whole numbers count as such where they are text, too: a later block may have turned a whole column into text.

    Args:
        part: columns ``user`` and ``item`` (``Int64`` or ``String``) and ``split`` (``Enum``).
    """
    digest = hashlib.sha256()
    for column in ("user", "item"):
        ids = narrowed(part[column])
        digest.update(str(ids.dtype).encode())
        if ids.dtype == pl.String:
            digest.update(ids.str.len_bytes().to_numpy().astype("<i8").tobytes())
            digest.update("".join(ids).encode())
        else:
            digest.update(ids.to_numpy().astype("<i8").tobytes())
    digest.update(part["split"].to_physical().to_numpy().astype("u1").tobytes())
    return digest.hexdigest()


def check_same_blocks(saved: list[str], stream: Stream, origin: str) -> None:
    """Make sure that a stream still starts with the blocks a run was trained on; new ones may follow.

    Args:
        saved: fingerprints of the blocks that the run knows.
        stream: what the source gives now.
        origin: what error messages call the source.

    Raises:
        ValueError: if one of these blocks changed or is gone.
    """
    present = stream.fingerprints
    if len(present) < len(saved):
        raise ValueError(
            f"{origin} holds {len(present)} blocks, but the run was trained on {len(saved)}:"
            f" block {len(present)} is gone. Pass the data it was trained on, or start a new run."
        )
    for index, (old, new) in enumerate(zip(saved, present, strict=False)):
        if old != new:
            raise ValueError(
                f"{origin}: block {index} is not the one the run was trained on (fingerprint {new[:12]}, expected"
                f" {old[:12]}). Old blocks must stay as they were; pass the data it was trained on, or start a new run. A period"
                " that was still filling makes such a block: `whole_periods: true` of an InteractionLog waits for its end."
            )


def _interactions(part: pl.DataFrame, split: Split, users: IdMap, items: IdMap) -> Interactions:
    rows = part.filter(pl.col("split") == split.value)
    first = rows.select(pl.struct("user", "item").is_first_distinct()).to_series()
    rows = rows.filter(first)
    return Interactions(users.encode(rows["user"]), items.encode(rows["item"]))


def _cold_users(blocks: list[Block]) -> list[int]:
    learned = np.zeros(blocks[-1].num_users, dtype=np.bool_)
    counts = []
    for block in blocks:
        learned[block.train.users.numpy()] = True
        held_out = np.zeros_like(learned)
        held_out[Interactions.concatenate([block.valid, block.test]).users.numpy()] = True
        counts.append(int((held_out & ~learned).sum()))
    return counts
