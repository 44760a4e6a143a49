from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from ccd_lightning.data.pairs import PairSet
from ccd_lightning.objectives import ExperienceReplay, OwnLoss
from ccd_lightning.types import RankingBatch, UserBatch

from ..tiny import interactions, random_pairs

SHAPE = (30, 40)
NEW = random_pairs(SHAPE, 20, 0)
OLD = [pair for pair in random_pairs(SHAPE, 120, 1) if pair not in NEW]


def replay(share: float, kind: type = RankingBatch, old: list[tuple[int, int]] = OLD) -> ExperienceReplay:
    forbidden = PairSet.from_interactions(interactions(NEW + OLD), *SHAPE)
    return ExperienceReplay(OwnLoss(interactions(NEW), forbidden, 2, kind), interactions(old), share)


def learned(objective: ExperienceReplay, seed: int = 0) -> list[tuple[int, int]]:
    batches = objective.batches(7, torch.Generator().manual_seed(seed))
    return [pair for batch in batches for pair in zip(batch.users.tolist(), batch.positives.tolist(), strict=True)]


@pytest.mark.parametrize("share", [0.5, 1.0, 2.5])
def test_an_epoch_holds_every_new_pair_and_so_many_old_ones(share):
    counts = Counter(learned(replay(share)))
    assert max(counts.values()) == 1
    assert set(NEW) <= set(counts)
    old = set(counts) - set(NEW)
    assert old <= set(OLD)
    assert len(old) == int(share * len(NEW))


def test_an_infinite_share_takes_the_whole_past():
    assert sorted(learned(replay(math.inf))) == sorted(NEW + OLD)


def test_old_pairs_are_drawn_uniformly_and_anew_for_every_epoch():
    objective, epochs = replay(1.0), 600
    counts = Counter(pair for seed in range(epochs) for pair in learned(objective, seed) if pair not in NEW)
    share = len(NEW) / len(OLD)
    deviation = math.sqrt(epochs * share * (1 - share))
    assert all(abs(counts[pair] - epochs * share) < 5 * deviation for pair in OLD)


def test_old_and_new_pairs_are_mixed():
    places = [place for place, pair in enumerate(learned(replay(math.inf))) if pair in NEW]
    assert min(places) < len(NEW) < max(places)


def test_without_a_past_it_is_the_own_loss():
    objective = replay(1.0, old=[])
    own = OwnLoss(objective.interactions, objective.forbidden, 2, RankingBatch)
    for first, second in zip(*(o.batches(7, torch.Generator().manual_seed(3)) for o in (objective, own)), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))


def test_users_of_old_pairs_come_with_those_of_new_ones():
    batches = replay(math.inf, UserBatch).batches(50, torch.Generator().manual_seed(0))
    users = sorted(user for batch in batches for user in batch.users.tolist())
    assert users == sorted({user for user, _ in NEW + OLD})
