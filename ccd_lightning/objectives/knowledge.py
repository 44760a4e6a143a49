"""What a model knows, as top-K rankings: O(U * K) memory whatever the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ccd_lightning.backbones import evaluating
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.distributed import gather_tables, own_chunks, share_rows

CHUNK = 512
"""Users scored at a time."""

_LAST_USER = 2**32 - 1
_NOBODY = -(2**63)
_MINUS_INFINITY = (-0x00800000) ^ 0x7FFFFFFF


class Scorer(Protocol):
    """Whatever scores the whole catalogue for a batch of users: a backbone, or a system of them."""

    @property
    def num_users(self) -> int:
        """Users it knows."""

    @property
    def num_items(self) -> int:
        """Items it knows."""

    def scores(self, users: Tensor) -> Tensor:
        """Scores ``(B, I)`` of all items for users ``(B,)``."""


@dataclass(frozen=True)
class Rankings:
    """The best items of every user a model knows, on the CPU.

    Args:
        items: best first, int64 ``(U, K)``, -1 beyond the end.
        scores: the model's scores of them, float ``(U, K)``.
    """

    items: Tensor
    scores: Tensor

    def pairs(self, num_users: int, num_items: int) -> PairSet:
        """The listed (user, item) pairs as a set."""
        return pairs_of_lists(self.items, num_users, num_items)

    def best(self, number: int) -> Rankings:
        """The first ``number`` places."""
        return Rankings(self.items[:, :number], self.scores[:, :number])


def pairs_of_lists(lists: Tensor, num_rows: int, num_columns: int) -> PairSet:
    """The (row, entry) pairs of ranking lists ``(rows, K)``, without the padding."""
    rows = torch.arange(lists.shape[0]).unsqueeze(1).expand_as(lists)
    listed = lists >= 0
    if listed.all():
        return PairSet(rows.flatten(), lists.flatten(), num_rows, num_columns)
    return PairSet(rows[listed], lists[listed], num_rows, num_columns)


@torch.no_grad()
def top_items(
    scorer: Scorer, number: int, observed: PairSet, device: torch.device, users: Tensor | None = None
) -> Rankings:
    """The best unobserved items of every user that the scorer knows, or of some of them.

    Args:
        scorer: the model.
        number: K.
        observed: pairs left out.
        device: where the scorer lives.
        users: whom to rank for, int64 ``(B,)``, each once; those whom the scorer does not know are left out. The lists of all
            others are empty. By default everybody.
    """
    number = min(number, scorer.num_items)
    items = torch.zeros(scorer.num_users, number, dtype=torch.long, device=device)
    values = torch.zeros(scorer.num_users, number, device=device)
    observed = observed.to(device)
    asked = _known(users, scorer.num_users).to(device)
    for piece in own_chunks(len(asked), CHUNK):
        rows = asked[piece]
        values[rows], items[rows] = _best(_masked_scores(scorer, rows, observed), number)
    items, values = share_rows(items), share_rows(values)
    if users is not None:
        left_out = torch.ones(scorer.num_users, dtype=torch.bool, device=device).index_fill_(0, asked, False)
        items[left_out] = -1
    return Rankings(items.cpu(), values.cpu())


@torch.no_grad()
def top_lists(scorer: Scorer, number: int, observed: PairSet, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ranking lists of both sides in one pass over the users.

    Args:
        scorer: the model.
        number: K.
        observed: pairs left out.
        device: where the scorer lives.

    Returns:
        best unobserved items of each user, int64 ``(U, K)``; best users of each item that have not observed it, int64
        ``(I, K)``; both best first, with -1 beyond the end, on the CPU.
    """
    of_users = torch.zeros(scorer.num_users, min(number, scorer.num_items), dtype=torch.long, device=device)
    width = min(number, scorer.num_users)
    best = torch.full((scorer.num_items, width), _NOBODY, device=device)
    observed = observed.to(device)
    for rows in own_chunks(scorer.num_users, CHUNK):
        scores = _masked_scores(scorer, _range(rows, device), observed)
        of_users[rows] = _best(scores, of_users.shape[1])[1]
        values, places = scores.T.topk(min(width, scores.shape[0]), dim=1)
        best = torch.cat([best, _score_keys(values, places + rows.start)], dim=1).topk(width, dim=1).values
    return share_rows(of_users).cpu(), _users_of(gather_tables(best).topk(width, dim=1).values).cpu()


@torch.no_grad()
def top_overlap(
    first: Scorer, second: Scorer, number: int, seen: PairSet, device: torch.device, users: Tensor | None = None
) -> float:
    """Share of the first model's top places whose items are among the second's too, over users whom both know.

    Where every user has K items to rank, this is the mean over users of ``|top K of both| / K``.

    Args:
        first: one model.
        second: another one.
        number: K.
        seen: pairs left out of both.
        device: where the scorers live.
        users: over whom, int64 ``(B,)``; those whom one of them does not know are left out. By default everybody.

    Returns:
        From 0 to 1; 0 if nothing is ranked. The same for any number of processes, since only places are counted.
    """
    places = torch.zeros(2, dtype=torch.long, device=device)
    seen = seen.to(device)
    asked = _known(users, min(first.num_users, second.num_users)).to(device)
    for piece in own_chunks(len(asked), CHUNK):
        lists, others = (
            _best(_masked_scores(scorer, asked[piece], seen), min(number, scorer.num_items))[1]
            for scorer in (first, second)
        )
        listed = lists >= 0
        shared = (lists.unsqueeze(-1) == others.unsqueeze(-2)).any(-1) & listed
        places += torch.stack([shared.sum(), listed.sum()])
    shared_places, all_places = share_rows(places).tolist()
    return float(shared_places / max(all_places, 1))


def _known(users: Tensor | None, num_users: int) -> Tensor:
    return torch.arange(num_users) if users is None else users[users < num_users]


def _range(rows: slice, device: torch.device) -> Tensor:
    return torch.arange(rows.start, rows.stop, device=device)


def _masked_scores(scorer: Scorer, users: Tensor, observed: PairSet) -> Tensor:
    with evaluating(scorer):
        # A copy in any case: the scores may be the scorer's own.
        scores = scorer.scores(users).float().nan_to_num(nan=-torch.inf)
    positions, items = observed.of(users)
    known = items < scorer.num_items
    scores[positions[known], items[known]] = -torch.inf
    return scores


def _best(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    values, items = scores.topk(number)
    nothing = values == -torch.inf
    return values.masked_fill(nothing, 0.0), items.masked_fill(nothing, -1)


def _score_keys(scores: Tensor, users: Tensor) -> Tensor:
    """Numbers in the order of the scores and, where these are equal, against that of the users; int64, of the scores' shape.

    Fused ranks are often equal, and without an order among them the lists would depend on how users are dealt out to processes.

    Args:
        scores: float32 ``(rows, B)``.
        users: int64 ``(rows, B)``.
    """
    # Adding 0 makes -0 a 0. The bits of negative floats count downwards.
    bits = (scores + 0.0).contiguous().view(torch.int32)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return (ordered << 32) + (_LAST_USER - users)


def _users_of(keys: Tensor) -> Tensor:
    """The users of :func:`_score_keys`, -1 for those whose score was -inf."""
    return (_LAST_USER - (keys & _LAST_USER)).masked_fill(keys >> 32 <= _MINUS_INFINITY, -1)
