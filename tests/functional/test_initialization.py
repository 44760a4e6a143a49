from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ccd_lightning.functional.initialization as initialization
from ccd_lightning.functional import init_new_rows
from ccd_lightning.functional._sparse import row_chunks


def one_hop_by_definition(rating: np.ndarray, row: int, old_other: np.ndarray) -> np.ndarray:
    touched = [j for j in range(len(old_other)) if rating[row, j]]
    return old_other[touched].mean(0) if touched else np.zeros(old_other.shape[1])


def two_hop_by_definition(rating: np.ndarray, row: int, old_own: np.ndarray, topk: int) -> np.ndarray:
    by_popularity = sorted(range(len(old_own)), key=lambda v: (-rating[v].sum(), v))
    neighbours = [v for v in by_popularity if (rating[v] * rating[row]).any()]
    others = [v for v in by_popularity if v not in neighbours]
    return old_own[(neighbours + others)[:topk] if len(neighbours) < topk else neighbours[:topk]].mean(0)


@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_coo, torch.sparse_csr])
@pytest.mark.parametrize("kind", ["user", "item"])
def test_golden_new_rows(golden, close, layout, kind):
    case = golden("new_entity_init")
    rating = case["in_R"] if kind == "user" else case["in_R"].T.contiguous()
    rating = rating if layout == torch.strided else rating.to_sparse(layout=layout)
    other = "item" if kind == "user" else "user"
    old_own, old_other = case[f"in_old_{kind}_emb"], case[f"in_old_{other}_emb"]
    new, one_hop, two_hop = init_new_rows(rating, old_own, old_other, int(case["in_topk"]))
    close(f"new {kind}s {layout}", new, case[f"out_new_{kind}_emb"])
    close(f"one hop {kind}s {layout}", one_hop, case[f"out_one_hop_{kind}"])
    close(f"two hop {kind}s {layout}", two_hop, case[f"out_two_hop_{kind}"])


def test_golden_exactly_topk_neighbours_are_not_replaced_by_everyone(golden, close):
    case = golden("new_entity_init")
    topk, row = int(case["in_quirk_topk"]), int(case["in_quirk_new_user_row"])
    old = case["in_old_user_emb"]
    two_hop = init_new_rows(case["in_R"], old, case["in_old_item_emb"], topk)[2][row]
    expected = two_hop_by_definition(case["in_R"].numpy(), len(old) + row, old.numpy(), topk)
    close("two hop with topk neighbours", two_hop, torch.tensor(expected))
    assert (two_hop - case["out_quirk_two_hop_row"]).abs().max() > 1e-3


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(0, 4), st.integers(0, 6), st.integers(1, 15), st.integers(0, 99))
def test_new_rows_match_their_definition(old, new, columns, topk, seed):
    rng = np.random.default_rng(seed)
    rating = (rng.uniform(size=(old + new, columns + 2)) < 0.3).astype(float)
    old_own, old_other = rng.normal(size=(old, 3)), rng.normal(size=(columns, 3))
    arguments = (torch.tensor(rating), torch.tensor(old_own), torch.tensor(old_other), topk)
    actual, one_hop, two_hop = (part.numpy() for part in init_new_rows(*arguments))
    assert actual.shape == (new, 3)
    for row in range(new):
        one = one_hop_by_definition(rating, old + row, old_other)
        two = two_hop_by_definition(rating, old + row, old_own, topk)
        np.testing.assert_allclose(one_hop[row], one, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(two_hop[row], two, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(actual[row], (one + two) / 2, rtol=1e-7, atol=1e-12)


def test_without_embeddings_of_the_other_kind_two_hops_count_alone():
    rating = (torch.rand(8, 5) < 0.4).float()
    new, one_hop, two_hop = init_new_rows(rating, torch.randn(6, 3), None, topk=2)
    assert torch.equal(new, two_hop) and (one_hop == 0).all() and new.shape == (2, 3)


def test_without_old_rows_two_hops_give_zero():
    new, one_hop, two_hop = init_new_rows(torch.ones(2, 3), torch.empty(0, 4), torch.ones(3, 4), topk=2)
    assert (two_hop == 0).all()
    torch.testing.assert_close(new, one_hop / 2)


def test_new_rows_do_not_depend_on_chunks(monkeypatch):
    rating = (torch.rand(30, 12) < 0.3).float()
    arguments = (rating, torch.randn(18, 3), torch.randn(9, 3), 4)
    whole = init_new_rows(*arguments)
    monkeypatch.setattr(initialization, "row_chunks", lambda work: row_chunks(work, limit=10))
    torch.testing.assert_close(init_new_rows(*arguments), whole)


def test_new_rows_keep_dtype_and_carry_no_gradient():
    table = torch.randn(3, 2, dtype=torch.float16, requires_grad=True)
    for part in init_new_rows(torch.ones(4, 2), table, table[:2], topk=1):
        assert part.dtype == torch.float16 and not part.requires_grad


def test_init_new_rows_rejects_bad_arguments():
    rating, own, other = torch.ones(3, 2), torch.zeros(2, 4), torch.zeros(2, 4)
    with pytest.raises(ValueError, match="Found topk=0, expected a positive number of neighbours"):
        init_new_rows(rating, own, other, 0)
    with pytest.raises(
        ValueError, match=r"Found interactions of shape \(3, 2\), expected at least 4 rows and 2 columns"
    ):
        init_new_rows(rating, torch.zeros(4, 4), other, 1)
    with pytest.raises(ValueError, match="expected at least 2 rows and 3 columns"):
        init_new_rows(rating, own, torch.zeros(3, 4), 1)
