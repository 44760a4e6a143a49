from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import kstest

from ccd_lightning.seeding import keyed_normal, seeded_generator


def numbers(*purpose):
    return torch.rand(8, generator=seeded_generator(*purpose)).tolist()


def test_generator_depends_on_its_purpose_alone():
    first = numbers(0, "teacher0", "block1-base", "batches", 2)
    torch.manual_seed(5)
    assert numbers(0, "teacher0", "block1-base", "batches", 2) == first


@pytest.mark.parametrize("other", [(1, "a", 2), (0, "b", 2), (0, "a", 3), (0, "a", "2"), (0, "a"), (0, 2, "a")])
def test_generators_of_other_purposes_differ(other):
    assert numbers(*other) != numbers(0, "a", 2)


def split_mix(seed: int, place: int) -> int:
    """SplitMix64 in Python's unlimited integers."""
    bits = (seed + place * 0x9E3779B97F4A7C15) % 2**64
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) % 2**64
    return bits ^ (bits >> 31)


def test_split_mix_gives_the_published_numbers():
    assert [split_mix(1234567, place) for place in (1, 2)] == [6457827717110365317, 3203168211198807973]


def test_keyed_normal_is_box_muller_of_split_mix(monkeypatch):
    monkeypatch.setattr("ccd_lightning.seeding._seed", lambda purpose: 1234567)
    found = keyed_normal(torch.tensor([0, 3, 10**6]), 2)
    for row, key in enumerate((0, 3, 10**6)):
        for column in range(2):
            bits = split_mix(1234567, key * 2 + column + 1)
            radius = math.sqrt(-2 * math.log(((bits >> 40) + 1) / 2**24))
            expected = radius * math.cos(2 * math.pi * (bits % 2**24) / 2**24)
            assert float(found[row, column]) == pytest.approx(expected, abs=2e-5)


def test_keyed_normal_is_standard_normal_and_independent_between_keys():
    found = keyed_normal(torch.arange(2000), 16, 3, "noise").double()
    assert kstest(found.flatten().numpy(), "norm").pvalue > 1e-3
    assert float(torch.corrcoef(found.T).triu(1).abs().max()) < 0.1
    assert float((found[1:] * found[:-1]).mean().abs()) < 0.02


def test_keyed_normal_of_a_part_is_a_part_of_the_whole():
    whole = keyed_normal(torch.arange(10), 5, 0, "noise", 1)
    part = torch.tensor([7, 2])
    assert torch.equal(keyed_normal(part, 5, 0, "noise", 1), whole[part])
    assert not torch.equal(keyed_normal(part, 5, 0, "noise", 2), whole[part])
