"""Graphs: the normalised bipartite graph of LightGCN, its propagation, and graphs of similar entities."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ccd_lightning.functional._sparse import pattern, row_chunks, to_scipy, to_torch_csr, weighted

# Bounds, tolerance and steps of the threshold search as in the CCD paper's release.
_LOWEST_THRESHOLD, _HIGHEST_THRESHOLD = 0.1001, 0.8999
_KEPT_SIMILARITY = 0.1
_DEGREE_TOLERANCE = 0.6
_MAX_STEPS = 100


def normalised_adjacency(
    users: Tensor, items: Tensor, n_users: int, n_items: int, weights: Tensor | None = None
) -> Tensor:
    """Symmetrically normalised bipartite graph ``D^-1/2 A D^-1/2`` (LightGCN, He et al., SIGIR 2020, eq. 7).

    Args:
        users: user of each edge, integer ``(E,)``; repeated edges count once.
        items: item of each edge, integer ``(E,)``.
        n_users: number of users, the first nodes.
        n_items: number of items, the nodes after them.
        weights: entry of A for each edge, above 0, float ``(E,)``, the largest one for repeated edges; ``None`` makes
            all of them 1. A node's degree in D is the sum of its weights.

    Returns:
        Sparse CSR float32 ``(n_users + n_items, n_users + n_items)``; rows of isolated nodes are empty.

    Raises:
        ValueError: if an edge names an unknown user or item.

    >>> normalised_adjacency(torch.tensor([0]), torch.tensor([1]), n_users=1, n_items=2).to_dense()
    tensor([[0., 0., 1.],
            [0., 0., 0.],
            [1., 0., 0.]])
    """
    _check_ids("user", users, n_users)
    _check_ids("item", items, n_items)
    places, shape = (users.cpu().numpy(), items.cpu().numpy()), (n_users, n_items)
    rating = pattern(*places, shape) if weights is None else weighted(*places, weights.cpu().numpy(), shape)
    with np.errstate(divide="ignore"):
        user_scale, item_scale = (1 / np.sqrt(rating.sum(axis)) for axis in (1, 0))
    edges = rating.tocoo()
    edges.data *= user_scale[edges.row] * item_scale[edges.col]
    rows = np.concatenate([edges.row.astype(np.int64), edges.col + np.int64(n_users)])
    columns = np.concatenate([edges.col + np.int64(n_users), edges.row.astype(np.int64)])
    nodes = n_users + n_items
    graph = sparse.csr_array((np.tile(edges.data, 2), (rows, columns)), shape=(nodes, nodes))
    graph.sort_indices()
    return to_torch_csr(graph, users.device)


def symmetric_matmul(adjacency: Tensor, dense: Tensor) -> Tensor:
    """Product of a symmetric sparse matrix with a dense one; its gradient is the same product.

    Always computed in the adjacency's precision, under autocast too. No gradient flows to the adjacency.

    Args:
        adjacency: sparse CSR ``(N, N)``, symmetric.
        dense: float ``(N, D)``.

    Returns:
        Float ``(N, D)``.

    >>> swap = normalised_adjacency(torch.tensor([0]), torch.tensor([0]), n_users=1, n_items=1)
    >>> symmetric_matmul(swap, torch.tensor([[1.0], [2.0]]))
    tensor([[2.],
            [1.]])
    """
    product: Tensor = _SymmetricMatmul.apply(adjacency, dense.to(adjacency.dtype))  # type: ignore[no-untyped-call]
    return product


def lightgcn_layers(adjacency: Tensor, embeddings: Tensor, num_layers: int) -> list[Tensor]:
    """Embeddings of the layers 0, ..., L of LightGCN (He et al., SIGIR 2020, eq. 7).

    Args:
        adjacency: normalised graph, sparse CSR ``(N, N)``.
        embeddings: layer 0, users then items, float ``(N, D)``.
        num_layers: L, number of propagations.

    Returns:
        ``num_layers + 1`` tensors, each float ``(N, D)``.

    >>> swap = normalised_adjacency(torch.tensor([0]), torch.tensor([0]), n_users=1, n_items=1)
    >>> [layer.flatten().tolist() for layer in lightgcn_layers(swap, torch.tensor([[1.0], [2.0]]), num_layers=2)]
    [[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]]
    """
    layers = [embeddings]
    for _ in range(num_layers):
        layers.append(symmetric_matmul(adjacency, layers[-1]))
    return layers


def lightgcn_propagation(adjacency: Tensor, users: Tensor, items: Tensor, num_layers: int) -> list[Tensor]:
    """Final embeddings of LightGCN, the mean of its layers, and the layers (He et al., SIGIR 2020, eq. 7 and 8).

    The gradient takes one product a layer, whichever of the results are used.

    Args:
        adjacency: normalised graph, sparse CSR ``(U + I, U + I)``.
        users: layer 0 of the users, float ``(U, D)``.
        items: layer 0 of the items, float ``(I, D)``.
        num_layers: L, number of propagations.

    Returns:
        final users ``(U, D)``, final items ``(I, D)``, and the layers 1, ..., L, each ``(U + I, D)``.

    >>> swap = normalised_adjacency(torch.tensor([0]), torch.tensor([0]), n_users=1, n_items=1)
    >>> user, item, first = lightgcn_propagation(swap, torch.tensor([[1.0]]), torch.tensor([[2.0]]), num_layers=1)
    >>> user.item(), item.item(), first.flatten().tolist()
    (1.5, 1.5, [2.0, 1.0])
    """
    tables = (users.to(adjacency.dtype), items.to(adjacency.dtype))
    found: tuple[Tensor, ...] = _Propagation.apply(adjacency, num_layers, *tables)  # type: ignore[no-untyped-call]
    return list(found)


def similarity_graph(interactions: Tensor, degree: float = 10) -> Tensor:
    """Graph of similar entities: cosine similarity of the rows, thresholded so that nodes have a given mean degree.

    The threshold is found by bisection on [0.1001, 0.8999], up to a mean degree off by less than 0.6. If no threshold
    reaches that, the graph of the last step is returned. Entities without interactions stay isolated, and count in
    the mean. After LWC-KD (Wang et al., CIKM 2021) in the form of the CCD paper's release.

    Args:
        interactions: 0/1 matrix ``(N, M)``, dense or sparse; rows are the entities to connect.
        degree: mean number of neighbours to aim at.

    Returns:
        Sparse COO float32 ``(N, N)``, coalesced, all values 1, symmetric, without diagonal.

    >>> similarity_graph(torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]), degree=1).to_dense()
    tensor([[0., 1., 0.],
            [1., 0., 0.],
            [0., 0., 0.]])
    """
    matrix = to_scipy(interactions)
    rows, columns, similarity = _similar_pairs(matrix)
    is_edge = similarity > _degree_threshold(np.sort(similarity), matrix.shape[0], degree)
    rows, columns = rows[is_edge], columns[is_edge]
    graph = pattern(np.concatenate([rows, columns]), np.concatenate([columns, rows]), (matrix.shape[0],) * 2).tocoo()
    indices = torch.from_numpy(np.stack([graph.row, graph.col]).astype(np.int64))
    size, ones = tuple(graph.shape), torch.ones(indices.shape[1])
    adjacency = torch.sparse_coo_tensor(indices, ones, size, is_coalesced=True, check_invariants=True)
    return adjacency.to(interactions.device)


def _similar_pairs(matrix: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (i, j) with i < j of rows whose cosine similarity can pass the lowest threshold, with that similarity."""
    norms = np.sqrt(matrix.sum(1)).clip(min=1e-8)
    transposed = matrix.T.tocsr()
    found = [(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0))]
    for part in row_chunks(matrix @ matrix.sum(0)):
        shared = sparse.triu(matrix[part] @ transposed, k=part.start + 1, format="coo")
        rows, columns = shared.row + part.start, shared.col
        similarity = shared.data / (norms[rows] * norms[columns])
        kept = similarity > _KEPT_SIMILARITY
        found.append((rows[kept].astype(np.int32), columns[kept].astype(np.int32), similarity[kept]))
    rows, columns, similarity = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return rows, columns, similarity


def _degree_threshold(ascending: np.ndarray, nodes: int, degree: float) -> float:
    """Last threshold of the bisection; ``ascending`` holds each pair's similarity once."""
    low, high = _LOWEST_THRESHOLD, _HIGHEST_THRESHOLD
    threshold = (low + high) / 2
    for _ in range(_MAX_STEPS):
        threshold = (low + high) / 2
        pairs = len(ascending) - int(np.searchsorted(ascending, threshold, side="right"))
        excess = 2 * pairs / max(1, nodes) - degree
        if abs(excess) < _DEGREE_TOLERANCE:
            break
        low, high = (threshold, high) if excess > 0 else (low, threshold)
    return threshold


def _check_ids(kind: str, ids: Tensor, count: int) -> None:
    if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= count):
        raise ValueError(
            f"Found {kind} ids from {int(ids.min())} to {int(ids.max())}, expected 0 to {count - 1}."
            f" Raise n_{kind}s to the number of known {kind}s, or drop the edges of unknown ones."
        )


def _product(adjacency: Tensor, dense: Tensor) -> Tensor:
    """Sparse CSR times dense, in the precision of both, without gradient."""
    if adjacency.shape[1] != len(dense):
        raise ValueError(
            f"Found {len(dense)} rows for a graph of {adjacency.shape[1]} nodes, expected one row for each node."
            " Grow the table, or build the graph over as many users and items."
        )
    with torch.autocast(dense.device.type, enabled=False):
        dense = dense.contiguous()
        if dense.device.type != "cpu" or dense.dtype != torch.float32:
            return adjacency @ dense
        # Weighted sums of rows: several times faster than the sparse product of torch's CPU library.
        return torch.nn.functional.embedding_bag(
            adjacency.col_indices(),
            dense,
            adjacency.crow_indices(),
            mode="sum",
            per_sample_weights=adjacency.values(),
            include_last_offset=True,
        )


class _SymmetricMatmul(torch.autograd.Function):
    """See :func:`symmetric_matmul`."""

    @staticmethod
    def forward(ctx: Any, adjacency: Tensor, dense: Tensor) -> Tensor:
        ctx.adjacency = adjacency
        return _product(adjacency, dense)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, symmetric_matmul(ctx.adjacency, grad)


class _Propagation(torch.autograd.Function):
    """See :func:`lightgcn_propagation`."""

    @staticmethod
    def forward(ctx: Any, adjacency: Tensor, num_layers: int, users: Tensor, items: Tensor) -> tuple[Tensor, ...]:
        ctx.adjacency, ctx.num_layers, ctx.sizes = adjacency, num_layers, (len(users), len(items))
        ctx.set_materialize_grads(False)
        layers = [torch.cat([users, items])]
        for _ in range(num_layers):
            layers.append(_product(adjacency, layers[-1]))
        final = layers[0].clone() if num_layers == 0 else layers[0] + layers[1]
        for layer in layers[2:]:
            final += layer
        final /= num_layers + 1
        return (final[: len(users)], final[len(users) :], *layers[1:])

    @staticmethod
    def backward(ctx: Any, users: Tensor | None, items: Tensor | None, *layers: Tensor | None) -> tuple[Any, ...]:
        present = next((grad for grad in (users, items, *layers) if grad is not None), None)
        if present is None:
            return None, None, None, None
        sides = zip((users, items), ctx.sizes, strict=True)
        final = torch.cat([present.new_zeros(n, present.shape[1]) if side is None else side for side, n in sides])
        final = final / (ctx.num_layers + 1)
        total = final
        for grad in reversed(layers):
            total = symmetric_matmul(ctx.adjacency, total if grad is None else total + grad).add_(final)
        return None, None, total[: ctx.sizes[0]], total[ctx.sizes[0] :]
