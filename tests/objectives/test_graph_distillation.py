from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor

from ccd_lightning import functional as F
from ccd_lightning.backbones import BPRMF, LightGCN, MultVAE
from ccd_lightning.data.history import History
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.objectives import GraphDistillation, OldKnowledge, PersonalWeights
from ccd_lightning.types import RankingBatch

from ..tiny import factorisation, random_history

CLOSE = {"rtol": 1e-5, "atol": 2e-6}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(users: Tensor, items: Tensor) -> RankingBatch:
    return RankingBatch(users, items, items[:, None], users.numel())


class Golden:
    """The golden case on a matrix factorisation, with old tables in the rows of the full ids."""

    def __init__(self, case: dict[str, Tensor]) -> None:
        self.case = case
        self.model = factorisation(case["in_present_user_emb"], case["in_present_item_emb"])
        self.batch = batch_of(case["in_batch_user"], case["in_batch_item"])
        self.ids = {side: case[f"in_before_{side}_ids"] for side in ("user", "item")}

    def old_table(self, side: str) -> Tensor:
        table = torch.full_like(self.case[f"in_present_{side}_emb"], torch.nan)
        table[self.ids[side]] = self.case[f"in_before_{side}_emb"]
        return table

    def pairs(self, matrix: Tensor, own: str, other: str) -> PairSet:
        rows, columns = matrix.nonzero().T
        sizes = (len(self.case[f"in_present_{side}_emb"]) for side in (own, other))
        return PairSet(self.ids[own][rows], self.ids[other][columns], *sizes)

    def objective(self, graphs: str = "R UU II", personal: PersonalWeights | None = None) -> GraphDistillation:
        tables = (self.old_table("user"), self.old_table("item"))
        found = {
            "R": ("in_before_rating_mat", "user", "item"),
            "UU": ("in_UU", "user", "user"),
            "II": ("in_II", "item", "item"),
        }
        sets = [
            self.pairs(self.case[key] * float(name in graphs.split()), own, other)
            for name, (key, own, other) in found.items()
        ]
        objective = GraphDistillation(
            OldKnowledge([tables], tables, *sets),
            weight=1.0,
            personal=personal,
            cluster_weight=0.0,
            temperature=float(self.case["in_temperature"]),
        )
        # The release counts entities of the last block that have no train interaction as well.
        objective._active_users, objective._active_items = self.ids["user"], self.ids["item"]
        return objective

    def personal(self) -> PersonalWeights:
        weights = PersonalWeights(self.case["in_cluster"].shape[1], self.case["in_cluster"].shape[0])
        names = {"clusters": "cluster", "transforms": "CSTM", "hidden.weight": "psv_w1", "hidden.bias": "psv_b1",
                 "output.weight": "psv_w2", "output.bias": "psv_b2"}  # fmt: skip
        with torch.no_grad():
            for name, parameter in weights.named_parameters():
                parameter.copy_(self.case[f"in_{names[name]}"])
            weights.ready.fill_(True)
        return weights


@pytest.fixture
def case(golden) -> Golden:
    return Golden(golden("lwckd_piw"))


@pytest.mark.parametrize(
    ("graphs", "side", "name"), [("R", "user", "UI"), ("R", "item", "IU"), ("UU", "user", "UU"), ("II", "item", "II")]
)
def test_golden_value_of_each_loss(case, graphs, side, name):
    nobody = torch.empty(0, dtype=torch.long)
    batch = case.batch._replace(**({"positives": nobody} if side == "user" else {"users": nobody}))
    found = case.objective(graphs)(case.model, batch)
    torch.testing.assert_close(found, case.case[f"out_{name}_loss"], **CLOSE)


@pytest.mark.parametrize(("graphs", "name"), [("R", "UI"), ("UU", "UU")])
def test_golden_value_of_personally_weighted_losses(case, graphs, name):
    batch = case.batch._replace(positives=torch.empty(0, dtype=torch.long))
    found = case.objective(graphs, case.personal())(case.model, batch)
    torch.testing.assert_close(found, case.case[f"out_alt_{name}_loss"], **CLOSE)


def test_golden_gradients_without_personal_weights(case):
    case.objective()(case.model, case.batch).backward()
    for side in ("user", "item"):
        found = getattr(case.model, f"{side}_embedding").grad
        torch.testing.assert_close(found, case.case[f"out_grad_{side}_emb"], **CLOSE)


def test_golden_gradients_with_personal_weights(case):
    weights = case.personal()
    case.objective(personal=weights)(case.model, case.batch).backward()
    for side in ("user", "item"):
        found = getattr(case.model, f"{side}_embedding").grad
        torch.testing.assert_close(found, case.case[f"out_alt_grad_{side}_emb"], **CLOSE)
    torch.testing.assert_close(weights.transforms.grad, case.case["out_alt_grad_CSTM"], **CLOSE)
    torch.testing.assert_close(weights.hidden.weight.grad, case.case["out_alt_grad_psv_w1"], **CLOSE)
    torch.testing.assert_close(weights.output.weight.grad, case.case["out_alt_grad_psv_w2"], **CLOSE)
    # The golden gradient also holds the cluster loss over the present block's items, which is that without weights.
    expected = case.case["out_alt_grad_cluster"] - case.case["out_grad_cluster"]
    torch.testing.assert_close(weights.clusters.grad, expected, **CLOSE)


def test_golden_raw_weights_of_the_module(case):
    users = case.case["out_common_user"]
    before, present = case.old_table("user")[users], case.model.user_embedding[users]
    torch.testing.assert_close(case.personal().raw(before, present)[:, None], case.case["out_piw_raw"], **CLOSE)


@pytest.fixture(params=[BPRMF, LightGCN])
def teacher(request):
    """A model that met block 0, its knowledge of then, and the same model after block 1."""
    history = random_history([(14, 12), (18, 15)])
    model = request.param(6)
    first = History(history.blocks[:1])
    model.meet(first, "neighbours", 3, generator())
    with torch.no_grad():
        for table in model.parameters():
            table.normal_(generator=generator(1))
    old = OldKnowledge.of(model, first, degree=3)
    before = deepcopy(model)
    model.meet(history, "neighbours", 3, generator(2))
    with torch.no_grad():
        for table in model.parameters():
            table.add_(0.3 * torch.randn(table.shape, generator=generator(3)))
    return before, old, model, first


USERS = torch.tensor([0, 17, 3, 3, 12, 15])
ITEMS = torch.tensor([11, 2, 14, 2, 0, 13])


def dense(pairs: PairSet) -> Tensor:
    matrix = torch.zeros(pairs.num_rows, pairs.num_columns)
    matrix[pairs.rows, pairs.columns] = 1
    return matrix


def test_knowledge_holds_layers_ratings_and_similarity_graphs(teacher):
    before, old, _, first = teacher
    assert len(old.layers) == len(before.layers())
    for kept, present in zip(old.layers, before.layers(), strict=True):
        assert all(torch.equal(a, b.detach()) for a, b in zip(kept, present, strict=True))
    assert not old.final[0].requires_grad
    ratings = dense(first.observed("block"))
    assert torch.equal(dense(old.ratings), ratings)
    assert torch.equal(dense(old.user_graph), F.similarity_graph(ratings, 3).to_dense())
    assert torch.equal(dense(old.item_graph), F.similarity_graph(ratings.T, 3).to_dense())


def by_definition(old: OldKnowledge, model: BPRMF) -> Tensor:
    """The four losses in float64 by dense softmaxes, averaged over the layers."""
    ratings, graphs = dense(old.ratings), (dense(old.user_graph), dense(old.item_graph))
    active = tuple(ratings.sum(axis).nonzero()[:, 0] for axis in (1, 0))
    rows = [ids[torch.isin(ids, known)] for ids, known in zip((USERS, ITEMS), active, strict=True)]
    total = torch.zeros((), dtype=torch.float64)
    layers = model.layers()
    for kept, present in zip(old.layers, layers, strict=True):
        for own, other, links in ((0, 1, ratings), (1, 0, ratings.T), (0, 0, graphs[0]), (1, 1, graphs[1])):
            logits = kept[own][rows[own]].double() @ present[other][active[other]].double().T / 5.0
            chosen = links[rows[own]][:, active[other]].double()
            value = (chosen * logits.log_softmax(1)).sum(1) / chosen.sum(1).clamp_min(1e-8)
            total = total - value.mean()
    return total / len(layers)


def test_losses_of_all_layers_equal_the_dense_definition(teacher):
    _, old, model, _ = teacher
    objective = GraphDistillation(old, weight=0.7)
    objective.prepare(model)
    found = objective(model, batch_of(USERS, ITEMS))
    torch.testing.assert_close(found.double(), 0.7 * by_definition(old, model), rtol=1e-4, atol=1e-5)
    found.backward()
    assert all(table.grad.abs().sum() > 0 for table in model.parameters())


def test_a_draw_of_candidates_estimates_the_softmax_anew_in_each_step(teacher):
    _, old, model, _ = teacher
    objective = GraphDistillation(old, weight=1.0, sample=4, seed=5)
    twin = GraphDistillation(old, weight=1.0, sample=4, seed=5)
    pools = [twin._pool(active) for active in (twin._active_users, twin._active_items)]
    assert all(len(pool.members) == 4 and (pool.members.diff() > 0).all() for pool in pools)
    assert [pool.population for pool in pools] == [len(twin._active_users), len(twin._active_items)]
    found = objective(model, batch_of(USERS, ITEMS))
    assert not torch.equal(objective._pool(objective._active_users).members, pools[0].members)
    found.backward()
    assert all(table.grad.abs().sum() > 0 for table in model.parameters())


@pytest.mark.parametrize("sample", [14, 1000])
def test_a_draw_of_everybody_is_the_exact_loss(teacher, sample):
    _, old, model, _ = teacher
    found = GraphDistillation(old, weight=1.0, sample=sample)(model, batch_of(USERS, ITEMS))
    torch.testing.assert_close(found.double(), by_definition(old, model), rtol=1e-4, atol=1e-5)


def test_the_sampled_loss_comes_close_to_the_exact_one(teacher):
    _, old, model, _ = teacher
    objective = GraphDistillation(old, weight=1.0, sample=8)
    found = torch.stack([objective(model, batch_of(USERS, ITEMS)).detach() for _ in range(200)])
    assert float(found.mean()) == pytest.approx(float(by_definition(old, model)), rel=0.02)


def test_a_batch_without_old_entities_costs_nothing(teacher):
    _, old, model, _ = teacher
    personal = PersonalWeights(6, 3)
    objective = GraphDistillation(old, personal=personal, cluster_weight=0.0)
    objective.prepare(model)
    found = objective(model, batch_of(torch.tensor([16, 17]), torch.tensor([13, 14])))
    found.backward()
    assert float(found.detach()) == 0.0
    assert all(parameter.grad is not None for parameter in personal.hidden.parameters())


def test_personal_weights_have_mean_one_and_are_all_one_where_nothing_differs(teacher):
    before, old, model, _ = teacher
    objective = GraphDistillation(old, personal=PersonalWeights(6, 3))
    objective.prepare(model)
    users = torch.arange(14)
    found = objective._personal_weights(old.final[0][users], model.embeddings()[0][users])
    assert float(found.detach().mean()) == pytest.approx(1.0, abs=1e-5)
    assert float(found.detach().std()) > 0
    same = objective._personal_weights(old.final[0][users], before.embeddings()[0][users])
    torch.testing.assert_close(same.detach(), torch.ones(14))


def test_cluster_loss_is_that_of_deep_embedded_clustering(teacher):
    _, old, model, _ = teacher
    personal = PersonalWeights(6, 3)
    with_clusters = GraphDistillation(old, weight=0.0, personal=personal, cluster_weight=2.0)
    with_clusters.prepare(model)
    found = with_clusters(model, batch_of(USERS, ITEMS))
    active = dense(old.ratings).sum(0).nonzero()[:, 0]
    items = model.embeddings()[1].detach()[active].double().numpy()
    clusters, dof = personal.clusters.detach().double().numpy(), len(active) - 1
    kernel = (1 + ((items[:, None] - clusters[None]) ** 2).sum(2) / dof) ** (-(dof + 1) / 2)
    soft = kernel / kernel.sum(1, keepdims=True)
    sharp = soft**2 / soft.sum(0)
    sharp /= sharp.sum(1, keepdims=True)
    expected = (sharp * (np.log(sharp) - np.log(soft))).sum() / len(items)
    assert float(found.detach()) == pytest.approx(2 * expected, rel=1e-4)


def test_personal_weights_begin_once_among_the_items_and_rest_between_stages(teacher):
    _, old, model, _ = teacher
    personal = PersonalWeights(6, 3).requires_grad_(False)
    assert not any(parameter.isnan().any() for parameter in personal.parameters())
    objective = GraphDistillation(old, personal=personal, seed=1)
    objective.prepare(model)
    assert all(parameter.requires_grad for parameter in personal.parameters())
    rows = (personal.clusters.detach()[:, None] == old.final[1][None]).all(2).any(1)
    assert rows.all()
    kept = personal.clusters.detach().clone()
    objective.finish(model)
    assert not any(parameter.requires_grad for parameter in personal.parameters())
    GraphDistillation(old, personal=personal, seed=2).prepare(model)
    assert torch.equal(personal.clusters.detach(), kept)
    restored = PersonalWeights(6, 3)
    restored.load_state_dict(personal.state_dict())
    assert bool(restored.ready)


def test_models_without_embeddings_are_refused():
    history = random_history([(5, 6)])
    model = MultVAE(4)
    model.meet(history, "neighbours", 3, generator())
    with pytest.raises(ValueError, match="MultVAE has no embeddings to distil: leave graph distillation out"):
        OldKnowledge.of(model, history)


def test_learning_pulls_present_neighbours_to_the_old_embeddings(teacher):
    _, old, model, _ = teacher
    objective = GraphDistillation(old, weight=1.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    values = []
    for _ in range(20):
        loss = objective(model, batch_of(torch.arange(14), torch.arange(14) % 12))
        values.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert values[-1] < values[0] - 0.3
