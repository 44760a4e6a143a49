"""Whole evaluations put together from the ranking functions: one block, all blocks, and the lists to distil."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ccd_lightning.functional import ndcg, order_items, recall

Ragged = dict[int, list[int]]


def without(row: Tensor, masked: set[int]) -> Tensor:
    return row[~torch.isin(row, torch.tensor(sorted(masked), dtype=torch.long))]


def evaluate(ranked: Tensor, masks: list[Ragged], truth: Ragged, users: list[int], ks: list[int]) -> dict[str, Tensor]:
    """Per user and k: recall, recall with a capped denominator, and NDCG."""
    rows = [without(ranked[user], {item for mask in masks for item in mask.get(user, [])}) for user in users]
    remaining = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
    answers = [torch.tensor(truth[user]) for user in users]
    sizes = torch.tensor([len(answer) for answer in answers], dtype=torch.float64)
    shares = torch.stack([recall(remaining, answers, k) for k in ks], 1)
    capped = torch.stack([sizes / sizes.clamp(max=k) for k in ks], 1)
    gains = torch.stack([ndcg(remaining, answers, k) for k in ks], 1)
    return {"R": shares, "P": shares * capped, "N": gains}


def evaluate_both(
    ranked: Tensor, train: Ragged, valid: Ragged, test: Ragged, ks: list[int], mask: Ragged | None = None
) -> dict[str, Tensor]:
    """The two modes of the golden cases, over the test users whom the ranked matrix and the train lists know."""
    users = [user for user in test if user < len(ranked) and user in train]
    mask = train if mask is None else mask
    found = {"valid": evaluate(ranked, [mask, test], valid, users, ks)}
    found["test"] = evaluate(ranked, [mask, valid], test, users, ks)
    return {f"{mode}_{name}": rows for mode in found for name, rows in found[mode].items()}


@pytest.mark.parametrize("inputs", ["", "edge_"])
def test_golden_metrics_of_one_block(golden, close, ragged, inputs):
    case = golden("metrics")
    lists = [ragged(case, f"in_{inputs}{split}") for split in ("train", "valid", "test")]
    for name, rows in evaluate_both(case["in_sorted_items"], *lists, case["in_ks"].tolist()).items():
        close(f"metrics {inputs}{name}", rows.mean(0), case[f"out_{inputs}{name}"], 1e-12)
        if not inputs:
            close(f"metrics per user {name}", rows, case[f"out_user_{name}"], 1e-12)


@pytest.mark.parametrize("variant", ["", "oldmodel_", "fullmask_"])
def test_golden_evaluation_of_all_blocks(golden, close, ragged, variant):
    case = golden("block_eval")
    ranked = case["in_sorted_items"]
    if variant == "oldmodel_":
        ranked = ranked[: int(case["in_oldmodel_rows"])]
    blocks, union = [], {}
    for block in range(3):
        train, valid, test = (ragged(case, f"in_{split}{block}") for split in ("train", "valid", "test"))
        union = {user: union.get(user, []) + train.get(user, []) for user in union | train}
        mask = union if variant == "fullmask_" else None
        blocks.append(evaluate_both(ranked, train, valid, test, case["in_ks"].tolist(), mask))
    for name in blocks[0]:
        means = torch.stack([rows[name].mean(0) for rows in blocks])
        close(f"blocks {variant}{name}", means, case[f"out_{variant}{name}"], 1e-12)
        if name.endswith("R"):
            close(f"blocks {variant}avg {name}", means.mean(0), case[f"out_{variant}avg_{name}"], 1e-12)


def test_golden_interesting_lists_leave_out_observed_items(golden, close, ragged):
    case = golden("rrd_interesting")
    scores, k = case["in_scores"].clone(), int(case["in_k"])
    for user, items in ragged(case, "in_train").items():
        scores[user, items] = -torch.inf
    close("interesting items", order_items(scores)[:, :k], case["out_alt_items_neginf"], 0)
    close("interesting users", order_items(scores.T)[:, :k], case["out_alt_users_neginf"], 0)


def test_golden_reference_lists_agree_behind_their_observed_items(golden, close, ragged):
    case = golden("rrd_interesting")
    scores, train = case["in_scores"].clone(), ragged(case, "in_train")
    for user, items in train.items():
        scores[user, items] = -torch.inf
    order = order_items(scores)
    for user, items in train.items():
        reference = case["out_items"][user].long()
        assert set(reference[: len(items)].tolist()) == set(items)
        assert torch.equal(reference[len(items) :], order[user, : len(reference) - len(items)])
