"""Proxy-guided replay: what to replay, how to draw it, and how proxies follow the student.

Source: "Continual Collaborative Distillation for Recommender System" (Lee, Kang, Kweon, Yu, KDD 2024).
"""

from __future__ import annotations

import torch
from torch import Tensor


def replay_weights(model_rank: Tensor, proxy_rank: Tensor, eps: float, top_n: int) -> Tensor:
    """Unnormalised probability of replaying each item: high where the model ranks worse than the proxy did.

    ``exp(eps * (model_rank - proxy_rank))`` where the proxy ranks the item among its first ``top_n``, else 0.

    Args:
        model_rank: ranks by the present model, 0 = best, int64 ``(B', I')`` with ``B' >= B`` and ``I' >= I``;
            rows and columns that the proxy does not know are cut off.
        proxy_rank: ranks by the proxy, int64 ``(B, I)``; negative ranks mark entries that are never replayed.
        eps: sharpness.
        top_n: number of the proxy's best items that may be replayed.

    Returns:
        Float32 ``(B, I)``.

    Raises:
        ValueError: if the model knows fewer rows or columns than the proxy.

    >>> replay_weights(torch.tensor([[5, 0, 2]]), torch.tensor([[0, 1]]), eps=0.1, top_n=1)
    tensor([[1.6487, 0.0000]])
    """
    rows, columns = proxy_rank.shape
    if model_rank.shape[0] < rows or model_rank.shape[1] < columns:
        raise ValueError(
            f"Found model ranks of shape {tuple(model_rank.shape)}, expected at least the proxy's {rows} x {columns}."
            " Pass the ranks of the model that has grown from the proxy's users and items."
        )
    advantage = (model_rank[:rows, :columns] - proxy_rank).to(torch.float32)
    return (eps * advantage).exp().masked_fill((proxy_rank < 0) | (proxy_rank >= top_n), 0.0)


def sample_without_replacement(weights: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Weighted draws without replacement from each row (Gumbel top-k, Kool et al., ICML 2019).

    Equal in distribution to drawing one entry after the other in proportion to the weights of those left.

    Args:
        weights: unnormalised probabilities, finite and not negative, float ``(B, C)``; entries of weight 0 are
            never drawn.
        n: number of draws from each row.
        generator: source of randomness on the CPU, so that every device draws the same.

    Returns:
        Columns in the order of the draws, int64 ``(B, n)``; -1 where a row has no entry left.

    Raises:
        ValueError: if a weight is negative or not finite.

    >>> sample_without_replacement(torch.tensor([[0.0, 2.0, 0.0]]), 2, torch.Generator().manual_seed(0))
    tensor([[ 1, -1]])
    """
    valid = weights.isfinite() & (weights >= 0)
    if not valid.all():
        raise ValueError(
            f"Found the sampling weight {weights[~valid][0].item()}, expected finite weights that are not negative."
            " Check the ranks, and lower eps if their exponential overflows."
        )
    noise = torch.empty(weights.shape).exponential_(generator=generator).to(weights.device)
    best = (weights.log() - noise.log()).topk(min(n, weights.shape[-1]), dim=-1)
    drawn = weights.new_full((weights.shape[0], n), -1, dtype=torch.long)
    drawn[:, : best.indices.shape[-1]] = best.indices.masked_fill(best.values == -torch.inf, -1)
    return drawn


def merge_proxy(previous: Tensor, present: Tensor, momentum: float) -> Tensor:
    """Moving average of a proxy and the present model; rows that the proxy lacks are copied from the model.

    ``momentum * previous + (1 - momentum) * present``: near 1 for stability, near 0 for plasticity.

    Args:
        previous: float ``(n, ...)``.
        present: float ``(m, ...)`` with ``m >= n``; further dimensions as in ``previous``.
        momentum: share of the proxy, in [0, 1].

    Returns:
        New tensor of the shape of ``present``, without gradient.

    Raises:
        ValueError: if the momentum is outside [0, 1] or the shapes are not those of a model that grew.

    >>> merge_proxy(torch.tensor([1.0]), torch.tensor([3.0, 5.0]), momentum=0.5)
    tensor([2., 5.])
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"Found momentum={momentum}, expected a number in [0, 1]. 1 keeps the proxy, 0 replaces it.")
    grown = previous.shape[1:] == present.shape[1:] and previous.shape[:1] <= present.shape[:1]
    if previous.dim() != present.dim() or not grown:
        raise ValueError(
            f"Found a proxy of shape {tuple(previous.shape)} and a model of shape {tuple(present.shape)}, expected the"
            " model's to differ in more rows at most. Merge tensors of one parameter, before and after growth."
        )
    merged = present.detach().clone()
    known = merged[: previous.shape[0]] if previous.dim() else merged
    known.mul_(1 - momentum).add_(previous.detach(), alpha=momentum)
    return merged


def larger_labels(users: Tensor, items: Tensor, labels: Tensor, num_items: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each (user, item) pair once, with the largest of its labels.

    Args:
        users: integer ``(n,)``.
        items: integer ``(n,)``, each less than ``num_items``.
        labels: float ``(n,)``.
        num_items: number of items.

    Returns:
        Users int64, items int64 and labels, each ``(m,)``, ordered by user and item.

    >>> larger_labels(torch.tensor([1, 0, 1]), torch.tensor([2, 0, 2]), torch.tensor([0.1, 0.3, 0.7]), num_items=3)
    (tensor([0, 1]), tensor([0, 2]), tensor([0.3000, 0.7000]))
    """
    pairs, inverse = torch.unique(users.long() * num_items + items, return_inverse=True)
    largest = labels.new_full(pairs.shape, -torch.inf).scatter_reduce_(0, inverse, labels, "amax")
    return pairs // num_items, pairs % num_items, largest
