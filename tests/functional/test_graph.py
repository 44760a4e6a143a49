from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ccd_lightning.functional import (
    bpr_loss,
    lightgcn_layers,
    lightgcn_propagation,
    normalised_adjacency,
    similarity_graph,
    symmetric_matmul,
)
from ccd_lightning.functional._sparse import row_chunks, to_scipy


def dense_adjacency(rating: np.ndarray) -> np.ndarray:
    users, items = rating.shape
    graph = np.block([[np.zeros((users, users)), rating], [rating.T, np.zeros((items, items))]])
    degree = graph.sum(1)
    scale = np.divide(1, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    return scale[:, None] * graph * scale[None]


def random_rating(users: int, items: int, density: float, seed: int = 0) -> torch.Tensor:
    return (torch.rand(users, items, generator=torch.Generator().manual_seed(seed)) < density).float()


def test_golden_lightgcn(golden, close):
    case = golden("lightgcn")
    users, items = case["in_R"].nonzero(as_tuple=True)
    adjacency = normalised_adjacency(users, items, *case["in_R"].shape)
    close("lightgcn adjacency", adjacency.to_dense(), case["out_SNM"])
    user_table, item_table = case["in_user_emb"].requires_grad_(), case["in_item_emb"].requires_grad_()
    layers = lightgcn_layers(adjacency, torch.cat([user_table, item_table]), int(case["in_num_layer"]))
    final_users, final_items = torch.stack(layers).mean(0).split([len(user_table), len(item_table)])
    batch_users = final_users[case["in_batch_user"]]
    positive = (batch_users * final_items[case["in_batch_pos"]]).sum(1)
    negative = (batch_users * final_items[case["in_batch_neg"]]).sum(1)
    loss = bpr_loss(positive, negative)
    loss.backward()
    close("lightgcn layers", torch.stack(layers)[:, : len(user_table)], case["out_layers_user"])
    close("lightgcn layers, items", torch.stack(layers)[:, len(user_table) :], case["out_layers_item"])
    close("lightgcn final users", final_users, case["out_user_emb"])
    close("lightgcn final items", final_items, case["out_item_emb"])
    close("lightgcn positive", positive[:, None], case["out_pos_score"])
    close("lightgcn negative", negative[:, None], case["out_neg_score"])
    close("lightgcn loss", loss, case["out_loss"])
    close("lightgcn grad users", user_table.grad, case["out_grad_user_emb"])
    close("lightgcn grad items", item_table.grad, case["out_grad_item_emb"])


@pytest.mark.parametrize("sub_case", ["a", "b"])
@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_coo, torch.sparse_csr])
def test_golden_similarity_graphs(golden, close, sub_case, layout):
    case = golden("uu_ii_graphs")
    rating = case[f"in_{sub_case}_R"].float()
    for name, matrix in (("UU", rating), ("II", rating.T.contiguous())):
        graph = similarity_graph(matrix if layout == torch.strided else matrix.to_sparse(layout=layout))
        close(f"similarity {sub_case} {name} {layout}", graph.to_dense(), case[f"out_{sub_case}_{name}"], 0)


def test_normalised_adjacency_counts_repeated_edges_once_and_takes_any_integer():
    rating = random_rating(6, 5, 0.4).numpy()
    rating[2] = 0
    users, items = (torch.tensor(np.tile(ids, 2), dtype=torch.int32) for ids in rating.nonzero())
    adjacency = normalised_adjacency(users, items, 6, 5)
    assert adjacency.layout == torch.sparse_csr and adjacency.dtype == torch.float32
    torch.testing.assert_close(adjacency.to_dense().double().numpy(), dense_adjacency(rating), rtol=1e-6, atol=1e-7)
    assert adjacency.values().numel() == 2 * int(rating.sum())


def test_normalised_adjacency_of_no_edges_is_empty():
    none = torch.empty(0, dtype=torch.long)
    for weights in (None, torch.empty(0)):
        assert normalised_adjacency(none, none, 2, 3, weights).to_dense().tolist() == [[0.0] * 5] * 5


def test_normalised_adjacency_takes_the_largest_weight_of_repeated_edges():
    rating = random_rating(6, 5, 0.5)
    rating[2] = 0
    users, items = rating.nonzero(as_tuple=True)
    weights = torch.rand(len(users), generator=torch.Generator().manual_seed(3)) + 0.1
    rating[users, items] = weights
    order = torch.randperm(2 * len(users), generator=torch.Generator().manual_seed(4))
    doubled = [torch.cat(pair)[order] for pair in ((users, users), (items, items), (weights, weights / 2))]
    adjacency = normalised_adjacency(*doubled[:2], 6, 5, weights=doubled[2])
    expected = dense_adjacency(rating.numpy())
    torch.testing.assert_close(adjacency.to_dense().double().numpy(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("users", "items", "kind"), [([0, 2], [0, 0], "user"), ([0, 1], [0, -1], "item")])
def test_normalised_adjacency_rejects_unknown_ids(users, items, kind):
    with pytest.raises(ValueError, match=rf"Found {kind} ids from .* expected 0 to 1\. Raise n_{kind}s"):
        normalised_adjacency(torch.tensor(users), torch.tensor(items), 2, 2)


def test_symmetric_matmul_has_exact_gradients():
    rating = random_rating(4, 3, 0.6)
    adjacency = normalised_adjacency(*rating.nonzero(as_tuple=True), 4, 3).double()
    dense = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: symmetric_matmul(adjacency, x), (dense,))
    assert torch.autograd.gradgradcheck(lambda x: symmetric_matmul(adjacency, x), (dense,))


def test_symmetric_matmul_keeps_full_precision_under_autocast():
    rating = random_rating(4, 3, 0.6)
    adjacency = normalised_adjacency(*rating.nonzero(as_tuple=True), 4, 3)
    dense = torch.randn(7, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        product = symmetric_matmul(adjacency, dense)
    assert product.dtype == torch.float32
    torch.testing.assert_close(product, adjacency.to_dense() @ dense)


def test_lightgcn_layers_are_powers_of_the_adjacency():
    rating = random_rating(5, 6, 0.3).numpy()
    embeddings = torch.randn(11, 3)
    adjacency = normalised_adjacency(*torch.tensor(rating).nonzero(as_tuple=True), 5, 6)
    layers = lightgcn_layers(adjacency, embeddings, 3)
    assert len(layers) == 4 and layers[0] is embeddings
    for power, layer in enumerate(layers):
        expected = np.linalg.matrix_power(dense_adjacency(rating), power) @ embeddings.double().numpy()
        np.testing.assert_allclose(layer.numpy(), expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 25), st.integers(1, 20), st.floats(0, 0.6), st.integers(0, 99))
def test_similarity_graph_is_symmetric_without_diagonal_and_cuts_at_one_similarity(rows, columns, density, seed):
    rating = random_rating(rows, columns, density, seed)
    graph = similarity_graph(rating, degree=3)
    dense = graph.to_dense()
    assert graph.layout == torch.sparse_coo and graph.dtype == torch.float32 and graph.is_coalesced()
    assert torch.equal(dense, dense.T) and dense.diagonal().sum() == 0 and set(dense.unique().tolist()) <= {0.0, 1.0}
    unit = rating.double() / rating.double().norm(dim=1, keepdim=True).clamp(min=1e-8)
    cosine = (unit @ unit.T).fill_diagonal_(torch.nan)
    linked, apart = cosine[dense == 1], cosine[dense == 0].nan_to_num(nan=0.1)
    assert not linked.numel() or linked.min() > apart.max() - 1e-9


def test_similarity_graph_of_a_real_stream_reaches_its_degree_and_cuts_at_one_similarity(shared_data):
    rows = pl.read_parquet(shared_data / "yelp_blocks.parquet").filter(pl.col("split") == "train", pl.col("block") == 0)
    pairs = torch.tensor(rows.select("user", "item").to_numpy().T.astype(np.int64))
    shape = tuple((pairs.amax(1) + 1).tolist())
    ones = torch.ones(pairs.shape[1])
    rating = torch.sparse_coo_tensor(pairs, ones, shape, check_invariants=True).coalesce()
    graph = similarity_graph(rating)
    assert abs(graph.values().numel() / shape[0] - 10) < 0.6
    matrix = to_scipy(rating)
    norms = np.sqrt(matrix.sum(1)).clip(min=1e-8)
    cosine = (matrix[:200] @ matrix.T).toarray() / (norms[:200, None] * norms)
    np.fill_diagonal(cosine, 0)
    linked = np.zeros_like(cosine, dtype=bool)
    own, other = graph.indices().numpy()
    linked[own[own < 200], other[own < 200]] = True
    assert cosine[linked].min() > cosine[~linked].max() - 1e-9


def test_similarity_graph_does_not_depend_on_chunks(monkeypatch):
    import ccd_lightning.functional.graph as module

    rating = random_rating(40, 30, 0.15)
    whole = similarity_graph(rating, degree=4).to_dense()
    monkeypatch.setattr(module, "row_chunks", lambda work: row_chunks(work, limit=20))
    assert torch.equal(similarity_graph(rating, degree=4).to_dense(), whole)


def test_similarity_graph_ignores_repeated_and_explicit_zero_entries():
    rating = random_rating(12, 9, 0.4)
    indices = rating.nonzero().T
    zeros = (rating == 0).nonzero().T[:, :5]
    values = torch.cat([torch.ones(2 * indices.shape[1]), torch.zeros(5)])
    positions = torch.cat([indices, indices, zeros], 1)
    messy = torch.sparse_coo_tensor(positions, values, rating.shape, check_invariants=True)
    assert torch.equal(similarity_graph(messy, 3).to_dense(), similarity_graph(rating, 3).to_dense())


def test_similarity_graph_rejects_what_is_no_matrix():
    with pytest.raises(ValueError, match="Found interactions with 1 dimensions, expected a matrix"):
        similarity_graph(torch.ones(3))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 30))
def test_row_chunks_cover_each_row_once_within_the_limit(work, limit):
    work = np.array(work, dtype=float)
    chunks = list(row_chunks(work, limit))
    assert [row for chunk in chunks for row in range(chunk.start, chunk.stop)] == list(range(len(work)))
    assert all(work[chunk].sum() < limit + max(work) for chunk in chunks)


def test_to_scipy_gives_the_same_pattern_from_every_layout():
    rating = random_rating(5, 4, 0.5)
    for matrix in (rating, rating.bool(), rating.to_sparse(), rating.to_sparse_csr()):
        np.testing.assert_array_equal(to_scipy(matrix).toarray(), rating.numpy())


@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_propagation_has_the_values_and_gradients_of_the_layers(num_layers):
    users, items = random_rating(6, 5, 0.4).nonzero(as_tuple=True)
    adjacency = normalised_adjacency(users, items, 6, 5).to(torch.float64)
    torch.manual_seed(0)
    tables = [torch.randn(rows, 3, dtype=torch.float64, requires_grad=True) for rows in (6, 5)]
    found = lightgcn_propagation(adjacency, *tables, num_layers)
    layers = lightgcn_layers(adjacency, torch.cat(tables), num_layers)
    expected = [*torch.stack(layers).mean(0).split([6, 5]), *layers[1:]]
    weights = [torch.randn_like(part) for part in expected]
    # Each result alone, then all of them.
    for used in [[index] for index in range(len(found))] + [list(range(len(found)))]:
        values = [sum((parts[i] * weights[i]).sum() for i in used) for parts in (found, expected)]
        gradients = [torch.autograd.grad(value, tables, retain_graph=True) for value in values]
        torch.testing.assert_close(*values)
        torch.testing.assert_close(*gradients)


def test_propagation_can_be_differentiated_twice():
    users, items = random_rating(4, 3, 0.6).nonzero(as_tuple=True)
    adjacency = normalised_adjacency(users, items, 4, 3).to(torch.float64)
    tables = [torch.randn(rows, 2, dtype=torch.float64, requires_grad=True) for rows in (4, 3)]
    assert torch.autograd.gradcheck(lambda u, i: tuple(lightgcn_propagation(adjacency, u, i, 2)), tables)
    assert torch.autograd.gradgradcheck(lambda u, i: tuple(lightgcn_propagation(adjacency, u, i, 2)), tables)


@pytest.mark.parametrize("density", [0.0, 0.3])
def test_single_precision_products_equal_the_dense_ones(density):
    rating = random_rating(30, 20, density)
    adjacency = normalised_adjacency(*rating.nonzero(as_tuple=True), 30, 20)
    dense = torch.randn(50, 7, generator=torch.Generator().manual_seed(1))
    expected = torch.from_numpy(dense_adjacency(rating.numpy())).float() @ dense
    torch.testing.assert_close(symmetric_matmul(adjacency, dense), expected)


@pytest.mark.parametrize("rows", [2, 4])
def test_products_refuse_a_table_of_another_size(rows):
    swap = normalised_adjacency(torch.tensor([0]), torch.tensor([1]), 1, 2)
    with pytest.raises(ValueError, match=f"Found {rows} rows for a graph of 3 nodes, expected one row for each node"):
        symmetric_matmul(swap, torch.zeros(rows, 2))
