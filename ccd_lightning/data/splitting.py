"""The steps from a log of events to blocks with splits: k-core, time blocks, per-user split."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

DROPPED = -1
SPLIT_WORDS = ("train", "valid", "test")


def k_core(users: Integers, items: Integers, core: int) -> Flags:
    """Keep the interactions of users and items that have at least ``core`` of them among those kept.

    Removing an item may leave a user with too few, so rounds are repeated until nothing changes.

    Args:
        users: codes from 0, int64 ``(n,)``.
        items: codes from 0, int64 ``(n,)``.
        core: interactions that every user and item must have.

    Returns:
        Which interactions stay, bool ``(n,)``.

    Example:
        >>> k_core(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 1]), 2)
        array([ True,  True,  True,  True, False])
    """
    kept = np.arange(len(users))
    while True:
        stays = (np.bincount(users[kept])[users[kept]] >= core) & (np.bincount(items[kept])[items[kept]] >= core)
        if stays.all():
            break
        kept = kept[stays]
    keep = np.zeros(len(users), dtype=np.bool_)
    keep[kept] = True
    return keep


def blocks_by_count(count: int, base_fraction: float, blocks: int) -> Integers:
    """Block numbers of ``count`` interactions in order of time: a base, then equal blocks.

    Args:
        count: interactions of the log.
        base_fraction: share of the interactions in block 0.
        blocks: blocks after the base; their sizes differ by one interaction at most.

    Returns:
        int64 ``(count,)``, never decreasing.

    Example:
        >>> blocks_by_count(7, 0.5, 2)
        array([0, 0, 0, 1, 1, 2, 2])
    """
    base = int(count * base_fraction) if blocks else count
    rest = np.arange(count - base) * max(blocks, 1) // max(count - base, 1)
    return np.concatenate([np.zeros(base, dtype=np.int64), rest + 1])


def blocks_by_period(times: pl.Series, period: str, origin: str) -> Integers:
    """Block numbers by calendar period: the first period is block 0, the next is block 1, and so on.

    Args:
        times: ``Datetime``, never decreasing.
        period: length of a block as polars writes it, such as ``1mo``, ``1w`` or ``1q``.
        origin: what error messages call the log.

    Returns:
        int64 ``(len(times),)``, never decreasing.

    Raises:
        ValueError: if the period is no duration, or one of the periods has no interaction.
    """
    starts, expected = _periods(times, period, origin)
    empty = expected.filter(~expected.is_in(starts.unique().to_list()))
    if len(empty):
        raise ValueError(
            f"{origin}: the period of {period} from {empty[0]} has no interaction, so its block would be empty."
            " Choose a longer `period`, or cut blocks by count (`period: null`)."
        )
    return starts.rle_id().to_numpy().astype(np.int64)


def in_whole_periods(times: pl.Series, period: str, origin: str) -> pl.Series:
    """Which events belong to a period that is over, as an event of a later period shows.

    Args:
        times: ``Datetime``, never decreasing.
        period: length of a block as polars writes it.
        origin: what error messages call the log.

    Returns:
        bool ``(len(times),)``: false for the events of the last period.

    Raises:
        ValueError: if the period is no duration, or no period is over.
    """
    starts, _ = _periods(times, period, origin)
    whole: pl.Series = starts < starts[-1]
    if not whole.any():
        raise ValueError(
            f"{origin}: all {len(times)} interactions lie in the period of {period} from {starts[0]}, which may still be"
            " filling, but `whole_periods` takes those alone that are over. Wait for the next one, choose a shorter"
            " `period`, or set `whole_periods: false`."
        )
    return whole


def _periods(times: pl.Series, period: str, origin: str) -> tuple[pl.Series, pl.Series]:
    """The start of each event's period, and the starts of all the periods from the first to the last."""
    try:
        starts = times.dt.truncate(period)
        return starts, pl.datetime_range(starts[0], starts[-1], interval=period, time_unit="us", eager=True)
    except (ValueError, pl.exceptions.PolarsError) as error:
        raise ValueError(
            f"{origin}: `period` is {period!r}, which is no length of time ({error})."
            " Write one such as 1d, 1w, 1mo, 1q."
        ) from error


def split_per_user(users: Integers, items: Integers, generator: np.random.Generator) -> Integers:
    """Deal each user's interactions of one block out to train, valid and test.

    Of n shuffled interactions of a user, m = max(floor(n / 10), 1) are for testing and the next m for validation.
    Held-out items that no one has in train are dropped; then users left without valid or without test items are dropped
    from both.

    Args:
        users: codes from 0, int64 ``(n,)``.
        items: codes from 0, int64 ``(n,)``.
        generator: what shuffles.

    Returns:
        Positions in `SPLIT_WORDS`, or `DROPPED`, int64 ``(n,)``.
    """
    order = np.lexsort((generator.random(len(users)), users))
    counts = np.bincount(users)
    place = np.empty(len(users), dtype=np.int64)
    place[order] = np.arange(len(users)) - (np.cumsum(counts) - counts)[users[order]]
    held = np.maximum(counts // 10, 1)[users]
    splits = np.where(place < held, 2, np.where(place < 2 * held, 1, 0))

    learned = np.zeros(items.max(initial=-1) + 1, dtype=np.bool_)
    learned[items[splits == 0]] = True
    splits[(splits > 0) & ~learned[items]] = DROPPED
    num_users = len(counts)
    complete = (np.bincount(users[splits == 1], minlength=num_users) > 0) & (
        np.bincount(users[splits == 2], minlength=num_users) > 0
    )
    splits[(splits > 0) & ~complete[users]] = DROPPED
    return splits
