from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds

from ccd_lightning.data import SimulatedStream, build_stream, check_same_blocks
from ccd_lightning.types import Split


@pytest.fixture(scope="module")
def stream():
    return build_stream(SimulatedStream().table(), "SimulatedStream")


def small(**arguments):
    return SimulatedStream(**{"users": 120, "items": 90, "interactions": 2000, "blocks": 4, **arguments})


def rows_of(block):
    return sum(block.split(split).size for split in Split)


def matrix(stream, block):
    seen = np.zeros((len(stream.users), len(stream.items)))
    seen[block.train.users, block.train.items] = 1
    return seen


def recall(scores, block, k=20):
    """Mean test recall over users, the plain way."""
    scores = scores.copy()
    for part in (block.train, block.valid):
        scores[part.users, part.items] = -np.inf
    top = np.argsort(-scores, axis=1)[:, :k]
    values = []
    for user in block.test.users.unique().tolist():
        truth = set(block.test.items[block.test.users == user].tolist())
        values.append(len(truth & set(top[user].tolist())) / len(truth))
    return float(np.mean(values))


def factored(seen, rank=8):
    left, sizes, right = svds(csr_matrix(seen), rank, v0=np.ones(min(seen.shape)))
    return (left * sizes) @ right


def test_simulated_stream_is_deterministic():
    assert small(seed=3).table().equals(small(seed=3).table())


def test_simulated_stream_depends_on_its_seed():
    assert not small(seed=3).table().equals(small(seed=4).table())


def test_simulated_stream_of_more_blocks_continues_the_shorter_one():
    short, long = (build_stream(small(blocks=blocks).table(), "simulated") for blocks in (3, 8))
    check_same_blocks(short.fingerprints, long, "simulated")
    assert len(long) == 8


def test_simulated_stream_has_the_sizes_asked_for(stream):
    assert len(stream) == 6
    assert len(stream.users) <= 1000
    assert len(stream.items) <= 800
    sizes = np.array([rows_of(block) for block in stream.blocks])
    assert sizes.sum() <= 60_000
    assert sizes.sum() > 0.9 * 60_000
    np.testing.assert_allclose(sizes / sizes.sum(), [0.5, 0.1, 0.1, 0.1, 0.1, 0.1], atol=0.02)


def test_simulated_stream_brings_newcomers_in_each_block(stream):
    assert stream.blocks[0].num_users == pytest.approx(500, abs=10)
    for block in stream.blocks[1:]:
        assert block.num_users - block.num_old_users == pytest.approx(100, abs=15)
        assert block.num_items - block.num_old_items == pytest.approx(80, abs=15)


def test_simulated_stream_has_no_repeats(stream):
    assert stream.repeats_dropped == 0


def head_share(stream):
    """Share of the most popular fifth of the items in block 0."""
    counts = np.sort(np.bincount(stream.blocks[0].train.items))[::-1]
    return counts[: len(counts) // 5].sum() / counts.sum()


def test_simulated_popularity_has_a_long_tail(stream):
    counts = np.bincount(stream.blocks[0].train.items)
    # Counts of equally popular items would be Poisson: ten standard deviations above the mean never happen.
    assert counts.max() > counts.mean() + 10 * np.sqrt(counts.mean())
    assert np.median(counts) < counts.mean()
    flat, steep = (build_stream(SimulatedStream(popularity=power).table(), "simulated") for power in (0.0, 1.2))
    assert 0.2 < head_share(flat) < head_share(stream) < head_share(steep)


@pytest.mark.parametrize("index", [0, 5])
def test_simulated_tastes_can_be_learned(stream, index):
    block = stream.blocks[index]
    seen = sum(matrix(stream, earlier) for earlier in stream.blocks[: index + 1])
    popular = np.broadcast_to(matrix(stream, block).sum(0), seen.shape)
    assert recall(factored(seen), block) > 1.2 * recall(popular, block)


def test_simulated_drift_makes_old_tastes_stale():
    def kept(drift):
        stream = build_stream(SimulatedStream(drift=drift).table(), "simulated")
        first, last = stream.blocks[0], stream.blocks[-1]
        return recall(factored(matrix(stream, last)), first)

    assert kept(0.5) < 0.8 * kept(0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"users": 0}, "`users` is 0, but a stream needs at least 1"),
        ({"blocks": 0}, "`blocks` is 0, but a stream needs at least 1"),
        ({"drift": 1.5}, "`drift` is 1.5, but must be from 0 to 1"),
        ({"base_fraction": 0.0}, "`base_fraction` is 0, but block 0 needs interactions"),
        ({"interactions": 10_000}, r"`interactions` is 10000, but 120 users and 90 items allow 2700"),
    ],
)
def test_simulated_stream_refuses_impossible_sizes(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)
