"""A made-up stream with the traits that make continual recommendation hard."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ccd_lightning.checks import require_number, require_whole
from ccd_lightning.data.sources import StreamSource
from ccd_lightning.data.splitting import DROPPED, SPLIT_WORDS, Integers, split_per_user
from ccd_lightning.types import chunks

Floats = npt.NDArray[np.float32]

_ROUNDS = 50
_VISITS_AT_ONCE = 8192
_TASTE_SPREAD = 0.7
_ACTIVITY_SPREAD = 0.7


class SimulatedStream(StreamSource):
    """Users with latent tastes that drift, items with a long tail of popularity, and newcomers of both in each block.

    At a visit, a user meets a few items drawn by popularity and takes the one that she likes best: the largest inner
    product of taste and item, plus Gumbel noise. Tastes are those of a group with a personal deviation; from block to
    block groups and persons drift. A pair occurs once in a block and may come back in a later one. More ``blocks``
    prolong the stream and leave the earlier ones as they are.

    Args:
        seed: two streams of the same seed and sizes are equal.
        users: users in all; ``base_fraction`` of them are there from block 0, ``block_fraction`` more join in each
            later block until all are there.
        items: items in all; they arrive as users do.
        interactions: what is drawn for 6 blocks: ``base_fraction`` of it in block 0, ``block_fraction`` in each later
            one. The per-user split then drops a few held-out ones.
        blocks: time blocks, the base included.
        drift: how much of a taste is replaced from one block to the next, from 0 (nothing) to 1 (all of it).
        base_fraction: share of block 0.
        block_fraction: share of each later block.
        dimensions: of the latent tastes.
        groups: of users with related tastes.
        popularity: exponent of Zipf's law; the n-th most popular item is met in proportion to 1 / n**popularity.
        candidates: items that a user meets at a visit.
        sharpness: weight of the taste against the noise of a choice.
    """

    def __init__(
        self,
        seed: int = 0,
        users: int = 1000,
        items: int = 800,
        interactions: int = 60_000,
        blocks: int = 6,
        drift: float = 0.2,
        base_fraction: float = 0.5,
        block_fraction: float = 0.1,
        dimensions: int = 12,
        groups: int = 8,
        popularity: float = 0.7,
        candidates: int = 32,
        sharpness: float = 12.0,
    ) -> None:
        least = {"users": users, "items": items, "interactions": interactions, "blocks": blocks, "groups": groups}
        for name, value in {**least, "dimensions": dimensions, "candidates": candidates}.items():
            if value < 1:
                raise ValueError(f"`{name}` is {value}, but a stream needs at least 1. Mend the source's arguments.")
        for name, share in (("drift", drift), ("base_fraction", base_fraction), ("block_fraction", block_fraction)):
            if not 0 <= share <= 1:
                raise ValueError(f"`{name}` is {share}, but must be from 0 to 1. Mend the source's arguments.")
        if not base_fraction:
            raise ValueError("`base_fraction` is 0, but block 0 needs interactions. Mend the source's arguments.")
        require_whole("seed", seed, 0)
        for name, strength in (("popularity", popularity), ("sharpness", sharpness)):
            require_number(name, strength, least=0)
        if interactions > users * items // 4:
            raise ValueError(
                f"`interactions` is {interactions}, but {users} users and {items} items allow {users * items // 4}"
                " (a quarter of all pairs). Ask for fewer interactions, or for more users and items."
            )
        self.seed, self.blocks, self.drift = seed, blocks, drift
        self.users, self.items, self.interactions = users, items, interactions
        self.base_fraction, self.block_fraction = base_fraction, block_fraction
        self.dimensions, self.groups, self.candidates, self.sharpness = dimensions, groups, candidates, sharpness
        self.popularity = popularity

    def table(self) -> pl.DataFrame:
        """The visits, block by block in the order in which they were drawn."""
        world = np.random.default_rng([self.seed, 0])
        vectors = _unit(world.standard_normal((self.items, self.dimensions), dtype=np.float32))
        appeal = world.permutation(np.arange(1.0, self.items + 1) ** -self.popularity)
        activity = world.lognormal(sigma=_ACTIVITY_SPREAD, size=self.users)
        group = world.integers(self.groups, size=self.users)
        tastes = self._tastes(world, group)
        parts = []
        for block in range(self.blocks):
            generator = np.random.default_rng([self.seed, 1, block])
            if block:
                tastes = _unit((1 - self.drift) * tastes + self.drift * self._tastes(generator, group))
            there = self._share(self.users, block), self._share(self.items, block)
            choices = _Choices(tastes[: there[0]], vectors[: there[1]], activity[: there[0]], appeal[: there[1]])
            pairs = self._visits(choices, block, generator)
            parts.append(_split(pairs // self.items, pairs % self.items, block, generator))
        return pl.concat(parts)

    def _tastes(self, generator: np.random.Generator, group: Integers) -> Floats:
        centres = _unit(generator.standard_normal((self.groups, self.dimensions), dtype=np.float32))
        own = _unit(generator.standard_normal((self.users, self.dimensions), dtype=np.float32))
        return _unit(centres[group] + _TASTE_SPREAD * own)

    def _share(self, total: int, block: int) -> int:
        return max(1, round(total * min(1.0, self.base_fraction + block * self.block_fraction)))

    def _visits(self, choices: _Choices, block: int, generator: np.random.Generator) -> Integers:
        """Distinct pairs in the order in which they were drawn, as user * items + item, int64 ``(n,)``."""
        wanted = round(self.interactions * (self.block_fraction if block else self.base_fraction))
        pairs = np.empty(0, dtype=np.int64)
        # Users may have taken all that they like: then a block ends with fewer visits.
        for _ in range(_ROUNDS):
            if len(pairs) >= wanted:
                break
            users, items = choices.draw(wanted - len(pairs), self.candidates, self.sharpness, generator)
            drawn = np.concatenate([pairs, users * self.items + items])
            pairs = drawn[pl.Series(drawn).is_first_distinct().to_numpy()]
        return pairs


class _Choices:
    """Who is there at one block, and what they like.

    Args:
        tastes: float ``(users, d)``.
        vectors: float ``(items, d)``.
        activity: how often each user comes, float ``(users,)``.
        appeal: how often each item is met, float ``(items,)``.
    """

    def __init__(self, tastes: Floats, vectors: Floats, activity: npt.NDArray[Any], appeal: npt.NDArray[Any]) -> None:
        self.tastes, self.vectors = tastes, vectors
        self.activity, self.appeal = np.cumsum(activity), np.cumsum(appeal)

    def draw(
        self, count: int, candidates: int, sharpness: float, generator: np.random.Generator
    ) -> tuple[Integers, Integers]:
        """Users and what they take at ``count`` visits, int64 ``(count,)`` each; pairs may repeat."""
        users = _weighted(self.activity, (count,), generator)
        items = np.empty(count, dtype=np.int64)
        for rows in chunks(count, _VISITS_AT_ONCE):
            met = _weighted(self.appeal, (rows.stop - rows.start, candidates), generator)
            liking = np.einsum("nd,ncd->nc", self.tastes[users[rows]], self.vectors[met])
            best = (sharpness * liking + generator.gumbel(size=met.shape)).argmax(axis=1)
            items[rows] = np.take_along_axis(met, best[:, None], axis=1)[:, 0]
        return users, items


def _weighted(cumulative: npt.NDArray[Any], shape: tuple[int, ...], generator: np.random.Generator) -> Integers:
    places = generator.random(shape).ravel() * cumulative[-1]
    # In order, each search begins near the one before: several times faster, the more so the longer the table.
    order = places.argsort()
    drawn = np.empty(places.size, dtype=np.int64)
    drawn[order] = np.searchsorted(cumulative, places[order], side="right")
    return drawn.reshape(shape)


def _unit(rows: Floats) -> Floats:
    unit: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _split(users: Integers, items: Integers, block: int, generator: np.random.Generator) -> pl.DataFrame:
    splits = split_per_user(users, items, generator)
    kept = splits != DROPPED
    words = pl.Series(SPLIT_WORDS).gather(splits[kept])
    return pl.DataFrame({"user": users[kept], "item": items[kept], "block": block, "split": words})
