from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ccd_lightning.backbones import MultVAE
from ccd_lightning.backbones import mult_vae as module
from ccd_lightning.data.history import History
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.types import UserBatch

from ..tiny import block, interactions, random_history

CLOSE = {"rtol": 1e-5, "atol": 2e-6}


def no_noise(keys: Tensor, width: int, *purpose: object) -> Tensor:
    return torch.zeros(len(keys), width)


def golden_model(case: dict[str, Tensor]) -> MultVAE:
    """The golden network with the golden input rows: ones observed, other values as soft positives."""
    rows = case["in_x"]
    model = MultVAE(
        case["in_mean_w"].shape[0], float(case["in_max_anneal"]), int(case["in_total_anneal_steps"]), soft_value=0.1
    )
    model.meet(
        History((block(0, tuple(rows.shape), (0, 0), (rows == 1).nonzero().tolist()),)),
        "neighbours",
        3,
        torch.Generator(),
    )
    weights = {"encoder": case["in_enc_w"].T, "encoder_bias": case["in_enc_b"], "decoder": case["in_dec_w"],
               "decoder_bias": case["in_dec_b"], "mean.weight": case["in_mean_w"], "mean.bias": case["in_mean_b"],
               "log_std.weight": case["in_logstd_w"], "log_std.bias": case["in_logstd_b"]}  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
        model.steps.fill_(int(case["in_step"]) - 1)
    soft = ((rows > 0) & (rows < 1)).nonzero().tolist()
    model.set_soft_positives(PairSet.from_interactions(interactions(soft), *rows.shape))
    return model


def test_golden_forward_pass_without_noise(golden):
    case = golden("vae")
    model = golden_model(case)
    users = torch.arange(len(case["in_x"]))
    mean, log_std = model.encode(*model.input_rows(users), len(users))
    torch.testing.assert_close(mean, case["out_z_mean"], **CLOSE)
    torch.testing.assert_close(log_std, case["out_z_logstd"], **CLOSE)
    torch.testing.assert_close(model.scores(users), case["out_logits"], **CLOSE)


def test_golden_loss_with_the_intended_target(golden, monkeypatch):
    monkeypatch.setattr(module, "keyed_normal", no_noise)
    case = golden("vae")
    model = golden_model(case)
    loss = model.loss(UserBatch(torch.arange(len(case["in_x"])), len(case["in_x"])))
    # The release takes the normalised row as target, and its divergence lacks the constant -1/2 per dimension.
    rows, width = case["in_x"].double(), case["out_z_mean"].shape[1]
    reconstruction = -(rows * case["out_logits"].double().log_softmax(-1)).sum(-1)
    divergence = case["out_kl_rows"].double() - width / 2
    expected = (reconstruction + float(case["out_kl_weight"]) * divergence).mean()
    torch.testing.assert_close(loss.double(), expected, **CLOSE)
    assert int(model.steps) == int(case["in_step"])


def test_golden_gradients_follow_from_autograd_on_dense_rows(golden, monkeypatch):
    monkeypatch.setattr(module, "keyed_normal", no_noise)
    case = golden("vae")
    model = golden_model(case)
    model.loss(UserBatch(torch.arange(len(case["in_x"])), len(case["in_x"]))).backward()
    leaves = {name: case[f"in_{name}"].double().requires_grad_() for name in ("enc_w", "enc_b", "dec_w", "dec_b",
              "mean_w", "mean_b", "logstd_w", "logstd_b")}  # fmt: skip
    rows = case["in_x"].double()
    hidden = (torch.nn.functional.normalize(rows) @ leaves["enc_w"].T + leaves["enc_b"]).tanh()
    mean = hidden @ leaves["mean_w"].T + leaves["mean_b"]
    log_std = hidden @ leaves["logstd_w"].T + leaves["logstd_b"]
    logits = mean @ leaves["dec_w"].T + leaves["dec_b"]
    divergence = 0.5 * (mean**2 + (2 * log_std).exp() - 2 * log_std - 1).sum(-1)
    weight = float(case["out_kl_weight"])
    (-(rows * logits.log_softmax(-1)).sum(-1) + weight * divergence).mean().backward()
    for found, name in (
        (model.encoder.grad.T, "enc_w"),
        (model.encoder_bias.grad, "enc_b"),
        (model.decoder.grad, "dec_w"),
        (model.decoder_bias.grad, "dec_b"),
        (model.mean.weight.grad, "mean_w"),
        (model.log_std.weight.grad, "logstd_w"),
    ):
        torch.testing.assert_close(found.double(), leaves[name].grad, **CLOSE)
    # The divergence's part does not depend on the target, and so is the release's.
    torch.testing.assert_close(model.log_std.weight.grad, case["out_grad_logstd_w"], **CLOSE)


@pytest.fixture
def model() -> MultVAE:
    found = MultVAE(4, anneal_steps=10)
    found.meet(random_history([(8, 9)]), "neighbours", 3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name in ("encoder", "decoder"):
            getattr(found, name).normal_(generator=torch.Generator().manual_seed(1))
    return found


def test_gradients_are_the_same_in_every_run_on_several_threads(two_threads):
    torch.manual_seed(0)
    users, items = torch.arange(200).repeat_interleave(20), torch.randint(30, (4000,))
    model = MultVAE(64).eval()
    seen = History((block(0, (200, 30), (0, 0), torch.stack([users, items], 1).unique(dim=0).tolist()),))
    model.meet(seen, "neighbours", 3, torch.Generator())
    first, *others = (
        torch.autograd.grad(model.loss(UserBatch(torch.arange(200), 200)), list(model.parameters())) for _ in range(20)
    )
    assert all(torch.equal(one, other) for again in others for one, other in zip(first, again, strict=True))


def test_scores_have_no_noise_and_no_soft_positives_in_evaluation(model):
    users = torch.arange(8)
    free = (~model._rows.contains(*torch.cartesian_prod(users, torch.arange(9)).T)).nonzero()[:5, 0]
    plain = model.eval().scores(users)
    model.set_soft_positives(PairSet(free // 9, free % 9, 8, 9))
    assert torch.equal(model.scores(users), plain)
    assert torch.equal(model.scores(users), model.scores(users))
    with torch.no_grad():
        assert float(model.loss(UserBatch(users, 8))) == float(model.loss(UserBatch(users, 8)))
    assert int(model.steps) == 0
    assert not torch.equal(model.train().scores(users), plain)


def test_input_rows_hold_observed_ones_and_soft_positives_elsewhere(model):
    pairs = torch.cartesian_prod(torch.arange(8), torch.arange(9))
    model.set_soft_positives(PairSet(pairs[:, 0], pairs[:, 1], 8, 9))
    rows = torch.zeros(8, 9)
    positions, items, values = model.input_rows(torch.arange(8))
    rows[positions, items] += values
    observed = torch.zeros(8, 9, dtype=torch.bool)
    observed[model._rows.rows, model._rows.columns] = True
    assert torch.equal(rows, torch.where(observed, 1.0, 0.1))
    model.observe(random_history([(8, 9)]))
    assert torch.equal(model.input_rows(torch.arange(8))[2], torch.ones(model._rows.size))


def met(seed: int) -> MultVAE:
    model = MultVAE(4)
    model.meet(random_history([(8, 9)]), "neighbours", 3, torch.Generator().manual_seed(seed))
    return model


def test_all_that_is_drawn_follows_from_the_generator_of_the_first_block():
    one, same, other = met(0), met(0), met(1)
    for (name, found), again, different in zip(
        one.named_parameters(), same.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(found, again)
        assert torch.equal(found, different) == ("bias" in name and name != "decoder_bias"), name
    batch = UserBatch(torch.arange(8), 8)
    assert torch.equal(one.loss(batch), same.loss(batch))


def test_shared_weights_are_drawn_once(model):
    before = model.mean.weight.clone()
    model.meet(random_history([(8, 9), (10, 12)]), "neighbours", 3, torch.Generator().manual_seed(1))
    assert torch.equal(model.mean.weight, before)


def test_noise_depends_on_stage_step_and_user_alone(model):
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def loss(users: list[int], size: int) -> Tensor:
        model.load_state_dict(state)
        return model.loss(UserBatch(torch.tensor(users, dtype=torch.long), size)).detach()

    whole = loss([5, 1, 2, 7], 4)
    torch.testing.assert_close(loss([7, 5], 4) + loss([2, 1], 4), whole)
    torch.testing.assert_close(loss([5, 1, 2, 7], 4) + loss([], 4), whole)
    # A stage that goes on meets its block again, and draws what it drew.
    model.meet(random_history([(8, 9)]), "neighbours", 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss([5, 1, 2, 7], 4), whole)
    model.meet(random_history([(8, 9)]), "neighbours", 3, torch.Generator().manual_seed(4))
    assert not torch.isclose(loss([5, 1, 2, 7], 4), whole)


def test_divergence_weight_rises_with_the_steps_and_is_saved(model, monkeypatch):
    monkeypatch.setattr(module, "keyed_normal", no_noise)
    batch = UserBatch(torch.arange(8), 8)
    losses = torch.stack([model.loss(batch).detach() for _ in range(4)])
    # Weights 0.1, 0.2, 0.2, 0.2: a step of a tenth up to the maximum.
    assert losses[1] > losses[0]
    torch.testing.assert_close(losses[1:], losses[1].expand(3))
    assert int(model.state_dict()["steps"]) == 4
    restored = MultVAE(4, anneal_steps=10)
    restored.load_state_dict(model.state_dict())
    assert int(restored.steps) == 4


@pytest.mark.parametrize("history", ["block", "cumulative"])
def test_input_rows_span_what_is_asked(history):
    stream = random_history([(8, 9), (10, 11)])
    found = MultVAE(4, history=history)
    found.meet(stream, "neighbours", 3, torch.Generator())
    assert found._rows.size == stream.observed(history).size


def test_pair_scores_and_users_without_rows(model):
    users, items = torch.tensor([7, 0, 7]), torch.tensor([8, 0, 1])
    torch.testing.assert_close(model.pair_scores(users, items), model.scores(users)[torch.arange(3), items])
    nobody = MultVAE(4)
    nobody.grow(3, 5, torch.Generator())
    assert nobody.scores(torch.arange(3)).isfinite().all()
    assert nobody.embeddings() is None and nobody.layers() == []


def test_loss_is_the_same_in_double_precision(monkeypatch):
    monkeypatch.setattr(module, "keyed_normal", no_noise)
    losses = []
    for kind in (torch.float32, torch.float64):
        model = MultVAE(4).to(kind)
        model.meet(random_history([(8, 9)]), "neighbours", 3, torch.Generator().manual_seed(0))
        losses.append(model.to(kind).loss(UserBatch(torch.arange(8), 8)))
    assert losses[1].dtype == torch.float64
    torch.testing.assert_close(losses[0].double(), losses[1], rtol=1e-5, atol=0)
