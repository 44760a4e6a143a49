from __future__ import annotations

import pytest
import torch

from ccd_lightning.data.pairs import PairSet
from ccd_lightning.objectives import OwnLoss, per_block
from ccd_lightning.types import Interactions, RankingBatch, UserBatch

from ..tiny import factorisation, interactions, random_pairs

SHAPE = (10, 12)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def own(kind: type = RankingBatch, negatives: int = 3) -> tuple[OwnLoss, Interactions, PairSet]:
    train = interactions(random_pairs(SHAPE, 40, 0))
    forbidden = PairSet.from_interactions(train, *SHAPE).union(
        PairSet.from_interactions(interactions(random_pairs(SHAPE, 30, 1)), *SHAPE)
    )
    return OwnLoss(train, forbidden, negatives, kind), train, forbidden


def test_ranking_batches_hold_every_interaction_once_with_allowed_negatives():
    objective, train, forbidden = own()
    batches = list(objective.batches(16, generator()))
    pairs = [pair for batch in batches for pair in zip(batch.users.tolist(), batch.positives.tolist(), strict=True)]
    assert sorted(pairs) == sorted(zip(train.users.tolist(), train.items.tolist(), strict=True))
    for batch in batches:
        assert batch.negatives.shape == (batch.users.numel(), 3)
        assert not forbidden.contains(batch.users[:, None].expand(-1, 3), batch.negatives).any()


def test_user_batches_hold_every_active_user_once():
    objective, train, _ = own(UserBatch)
    batches = list(objective.batches(4, generator()))
    users = [user for batch in batches for user in batch.users.tolist()]
    assert sorted(users) == train.users.unique().tolist()
    assert sum(batch.global_size for batch in batches) == len(users)


@pytest.mark.parametrize("kind", [RankingBatch, UserBatch])
def test_order_depends_on_the_generator_alone(kind):
    objective, _, _ = own(kind)
    orders = [[batch.users.tolist() for batch in objective.batches(7, generator(seed))] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_value_is_the_models_own_loss():
    objective, _, _ = own()
    model = factorisation(torch.randn(10, 4, generator=generator(1)), torch.randn(12, 4, generator=generator(2)))
    (batch,) = objective.batches(100, generator())
    anchor = model.user_embedding[batch.users]
    margins = (anchor * model.item_embedding[batch.positives]).sum(1, keepdim=True) - (
        anchor[:, None] * model.item_embedding[batch.negatives]
    ).sum(2)
    torch.testing.assert_close(objective(model, batch), (1 + (-margins).exp()).log().sum())
    assert objective.weight(3) == 1.0


def test_a_setting_by_block_must_not_be_an_empty_list():
    assert [per_block((5, 3), block) for block in (0, 1, 2, 9)] == [5, 5, 3, 3]
    with pytest.raises(ValueError, match="A setting by block is an empty list, but needs one value a block"):
        per_block([], 1)
