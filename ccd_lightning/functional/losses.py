"""Losses of the backbones: pairwise ranking, soft labels, and the two parts of a variational auto-encoder's bound."""

from __future__ import annotations

from typing import Any

import torch
from scipy import sparse
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

from ccd_lightning.functional.sharding import products_with_shards, rows_of_shards


def bpr_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Bayesian personalised ranking, ``-sum log sigmoid(positive - negative)`` (Rendle et al., UAI 2009).

    Args:
        positive: scores of observed items, float ``(B,)``.
        negative: scores of unobserved items, float ``(B,)`` or ``(B, N)`` with N negatives for each positive.

    Returns:
        Scalar: a sum over all the pairs, finite for any finite margin.

    Raises:
        ValueError: if the shapes do not pair each negative with a positive.

    >>> bpr_loss(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor(1.0064)
    """
    if negative.shape[: positive.dim()] != positive.shape or negative.dim() > positive.dim() + 1:
        raise ValueError(
            f"Found positive scores of shape {tuple(positive.shape)} and negative ones of {tuple(negative.shape)},"
            " expected (B,) and (B,) or (B, N). Give each positive its own negatives along a last dimension."
        )
    if negative.dim() > positive.dim():
        positive = positive.unsqueeze(-1)
    return -torch.nn.functional.logsigmoid(positive - negative).sum()


def soft_label_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy between sigmoid scores and soft labels, summed.

    The replay loss of "Continual Collaborative Distillation for Recommender System" (Lee et al., KDD 2024).

    Args:
        scores: logits, float ``(B,)``.
        labels: targets in [0, 1], float ``(B,)``.

    Returns:
        Scalar sum.

    >>> soft_label_loss(torch.tensor([0.0, 2.0]), torch.tensor([0.5, 1.0]))
    tensor(0.8201)
    """
    return torch.nn.functional.binary_cross_entropy_with_logits(scores, labels, reduction="sum")


def multinomial_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Multinomial negative log-likelihood of each row (Mult-VAE, Liang et al., WWW 2018, eq. 2).

    Args:
        logits: one score for each item, float ``(B, I)``.
        target: weight of each item, float ``(B, I)``; rows need not sum to 1.

    Returns:
        ``-sum_i target_i log softmax_i(logits)``, float ``(B,)``.

    >>> multinomial_loss(torch.zeros(1, 4), torch.tensor([[1.0, 0.0, 1.0, 0.0]]))
    tensor([2.7726])
    """
    return -(target * torch.nn.functional.log_softmax(logits, dim=-1)).sum(-1)


def gaussian_kl(mean: Tensor, log_std: Tensor) -> Tensor:
    """Divergence ``KL(N(mean, std^2) || N(0, 1))`` of each row (Kingma and Welling, ICLR 2014, appendix B).

    Args:
        mean: float ``(B, D)``.
        log_std: logarithm of the standard deviation, float ``(B, D)``.

    Returns:
        Float ``(B,)``, zero if and only if every mean is 0 and every standard deviation 1.

    >>> gaussian_kl(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2))
    tensor([0.5000])
    """
    return 0.5 * (mean.square() + (2 * log_std).exp() - 2 * log_std - 1).sum(-1)


def annealed_weight(step: int, total: int, maximum: float) -> float:
    """Weight that grows linearly with the steps up to a maximum (Mult-VAE, Liang et al., WWW 2018).

    Args:
        step: number of the present step.
        total: steps after which an unlimited weight would be 1.
        maximum: largest weight.

    Raises:
        ValueError: if ``total`` is not positive.

    >>> annealed_weight(30, total=100, maximum=0.2), annealed_weight(10, total=100, maximum=0.2)
    (0.2, 0.1)
    """
    if total <= 0:
        raise ValueError(
            f"Found total={total}, expected a positive number of steps. For a constant weight, use the maximum itself."
        )
    return min(maximum, step / total)


def gather_rows(table: Tensor, ids: Tensor) -> Tensor:
    """Rows of a table; ``table[ids]`` with a gradient that is many times faster on a CPU, and the same in every run.

    The gradient of ``table[ids]`` adds up repeated rows in whatever order the CPU's threads come by.

    Args:
        table: float ``(N, D)``, whole or sharded by rows, or ``(N,)``.
        ids: int64, of any shape.

    Returns:
        Float ``(*ids.shape, D)``, or of the shape of ``ids``.

    >>> gather_rows(torch.tensor([[1.0], [2.0]]), torch.tensor([[1, 1], [0, 1]])).squeeze(-1)
    tensor([[2., 2.],
            [1., 2.]])
    """
    if isinstance(table, DTensor):
        return rows_of_shards(table, ids)
    return table.index_select(0, ids.reshape(-1)).view(*ids.shape, *table.shape[1:])


def products(query: Tensor, table: Tensor) -> Tensor:
    """Inner products with all the rows of a table.

    Args:
        query: float ``(B, D)``.
        table: float ``(N, D)``, whole or sharded by rows.

    Returns:
        Float ``(B, N)``.

    >>> products(torch.tensor([[1.0, 2.0]]), torch.eye(2))
    tensor([[1., 2.]])
    """
    return products_with_shards(query, table) if isinstance(table, DTensor) else query @ table.T


def listed_products(query: Tensor, table: Tensor, ids: Tensor) -> Tensor:
    """Inner products of each query with the rows of a table that it lists.

    Args:
        query: float ``(B, D)``.
        table: float ``(N, D)``, whole or sharded by rows.
        ids: int64 ``(B, K)``.

    Returns:
        Float ``(B, K)``, float32 or more.

    >>> listed_products(torch.tensor([[1.0, 2.0]]), torch.eye(2), torch.tensor([[1, 0, 1]]))
    tensor([[2., 1., 2.]])
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    query, table = query.to(dtype), table.to(dtype)
    if isinstance(table, DTensor) or table.device.type != "cpu":
        return (query.unsqueeze(1) * gather_rows(table, ids)).sum(-1)
    with torch.autocast("cpu", enabled=False):
        found: Tensor = _ListedProducts.apply(query, table, ids)  # type: ignore[no-untyped-call]
        return found


class _ListedProducts(torch.autograd.Function):
    """See :func:`listed_products`: the gradients are products with the sparse matrix of the scores' gradients and its transpose."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, table: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(query, table, ids)
        listed = table.index_select(0, ids.reshape(-1)).view(*ids.shape, table.shape[1])
        return torch.bmm(query.unsqueeze(1), listed.transpose(1, 2)).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        query, table, ids = ctx.saved_tensors
        weights, listed, starts = grad.reshape(-1), ids.reshape(-1), torch.arange(len(ids) + 1) * ids.shape[1]
        query_grad = torch.nn.functional.embedding_bag(
            listed, table, starts, mode="sum", per_sample_weights=weights, include_last_offset=True
        )
        parts = (weights.numpy(), listed.numpy(), starts.numpy())
        # Unlike torch's index_add, the transposed product sorts nothing.
        table_grad = torch.from_numpy(sparse.csc_array(parts, shape=(len(table), len(ids))) @ query.numpy())
        return query_grad, table_grad, None
