"""The contract of a backbone as a test that users run on classes of their own."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from torch.export import ExportedProgram

from ccd_lightning import _contract as tiny
from ccd_lightning._contract import SIZES, BackboneContractError, close, history, met, require, scored, sizes_of, step
from ccd_lightning.backbones import Backbone, evaluating
from ccd_lightning.export.programs import (
    TRACEABLE,
    missing_packages,
    program_bytes,
    reason_of,
    same_lists,
    scorer_of,
    trace,
    write_onnx,
)

__all__ = ["BackboneContractError", "check_backbone"]

Factory = Callable[[], Backbone]


def check_backbone(factory: Factory) -> None:
    """Run the backbone contract on a tiny stream, as scikit-learn's ``check_estimator`` does for estimators.

    The last point is what an export needs: scores that `torch.export` can follow, and, where the extra `export` is
    installed, ONNX too.

    Args:
        factory: makes a new backbone that knows nobody, such as the class itself.

    Raises:
        BackboneContractError: at the first point that is violated.

    >>> from ccd_lightning.backbones import BPRMF
    >>> check_backbone(lambda: BPRMF(dim=4))
    """
    for point in (
        _starts_empty,
        _grows,
        _refuses_to_shrink,
        _scores_all_items,
        _scores_pairs_and_embeddings_alike,
        _has_a_loss_with_gradients,
        _has_a_loss_that_adds_up,
        _meets_a_second_block,
        _restores_its_state,
        _learns_and_scores_its_present_state,
        _copies_are_independent,
        _forgets,
        _can_be_exported,
    ):
        point(factory)


def _starts_empty(factory: Factory) -> None:
    mend = "Pass the class, or a function that makes a new one."
    require(not isinstance(factory, Backbone), "start", f"this is an instance of {type(factory).__name__}", mend)
    missing = ", ".join(f"`{name}`" for name in sorted(getattr(factory, "__abstractmethods__", ())))
    require(not missing, "start", f"{getattr(factory, '__name__', 'the class')} lacks {missing}", "Define it.")
    model = factory()
    require(isinstance(model, Backbone), "start", f"{type(model).__name__} is no `Backbone`", "Derive it from that.")
    mend = "Begin with nobody and no block, register tables with `add_rows`, and let `grow` append the rows."
    require(sizes_of(model) == (0, 0, -1), "start", f"sizes and block are {sizes_of(model)}, not (0, 0, -1)", mend)


def _grows(factory: Factory) -> None:
    model = factory()
    twin = deepcopy(model)
    for size in SIZES:
        before = tiny.tensors_of(model)
        for grown in (model, twin):
            grown.grow(*size, torch.Generator().manual_seed(size[0]))
        found = f"asked for {size} users and items, it knows {sizes_of(model)[:2]}"
        require(sizes_of(model)[:2] == size, "growth", found, "Call `super().grow`.")
        for name, tensor in model.named_parameters():
            kept = tensor[: len(before[name])] if tensor.dim() else tensor
            mend = "Append new rows and leave old ones bit for bit."
            require(torch.equal(kept, before[name]), "growth", f"old rows of `{name}` changed", mend)
            same = torch.equal(tensor, tiny.tensors_of(twin)[name])
            mend = "Draw new rows from the generator that `grow` is given, and from nothing else."
            require(same, "growth", f"new rows of `{name}` are not reproducible", mend)


def _refuses_to_shrink(factory: Factory) -> None:
    model = met(factory, last=1)
    with suppress(ValueError):
        model.grow(*SIZES[0], torch.Generator())
        found = f"a model of {SIZES[1]} users and items took {SIZES[0]}"
        require(False, "shrinking", found, "Raise a ValueError: call `super().grow` first.")


def _scores_all_items(factory: Factory) -> None:
    model, users = met(factory), torch.tensor([7, 0, 3])
    scores = scored(model, users)
    found = f"for 3 users and {model.num_items} items they have shape {tuple(scores.shape)} and dtype {scores.dtype}"
    fits = scores.shape == (3, model.num_items) and scores.is_floating_point()
    require(fits, "scores", found, "Return a float tensor with one row a user and one column an item.")
    require(bool(scores.isfinite().all()), "scores", "some are infinite or NaN", "Keep them finite: mask nothing.")
    require(scores.equal(scored(model, users)), "scores", "two calls differ", "Draw no noise in evaluation mode.")
    alone = torch.cat([scored(model, user[None]) for user in users])
    mend = "Share nothing between the rows, such as a normalisation over the batch."
    require(close(alone, scores), "scores", "a user's row depends on the other users of the batch", mend)
    _scores_nobody(model)


def _scores_nobody(model: Backbone) -> None:
    mend = "Return a float `(0, I)` for no users: a process may have none left."
    try:
        shape = scored(model, torch.empty(0, dtype=torch.long)).shape
    except (RuntimeError, IndexError) as error:
        raise BackboneContractError(f"scores: a batch of no users fails ({error}). {mend}") from error
    require(shape == (0, model.num_items), "scores", f"for no users they have shape {tuple(shape)}", mend)


def _scores_pairs_and_embeddings_alike(factory: Factory) -> None:
    model, users, items = met(factory), torch.tensor([5, 0, 5]), torch.tensor([1, 9, 0])
    with evaluating(model), torch.no_grad():
        pairs, found = model.pair_scores(users, items), model.embeddings()
    same = close(pairs, scored(model, users)[torch.arange(3), items])
    mend = "Return float `(B,)`, equal to `scores(users)[range(B), items]`."
    require(same, "pair_scores", "they differ from the rows of all scores", mend)
    same = found is None or close(found[0] @ found[1].T, scored(model))
    mend = "Return tables whose products are the scores, or None if the model has none."
    require(same, "embeddings", "their products are not the scores", mend)


def _has_a_loss_with_gradients(factory: Factory) -> None:
    model = met(factory)
    loss = model.loss(tiny.batch_of(model))
    found = f"its shape is {tuple(loss.shape)} and its value {loss.detach().flatten()[:3].tolist()}"
    require(loss.dim() == 0 and bool(loss.isfinite()), "loss", found, "Return a finite scalar.")
    require(loss.requires_grad, "loss", "it has no gradient", "Compute it from the parameters, without `detach`.")
    loss.backward()  # type: ignore[no-untyped-call]
    idle = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
    mend = "Use every parameter, or set `requires_grad` of the others to False: DDP waits for each gradient."
    require(not idle, "loss", f"no gradient reaches {idle}", mend)


def _has_a_loss_that_adds_up(factory: Factory) -> None:
    model = met(factory)
    whole = tiny.batch_of(model)
    cuts = [0, whole.global_size // 3, whole.global_size, whole.global_size]
    parts = [tiny.rows_of(whole, slice(*ends)) for ends in pairwise(cuts)]
    with evaluating(model), torch.no_grad():
        again, value, *values = [float(deepcopy(model).loss(batch)) for batch in (whole, whole, *parts)]
    adds_up = again != value or abs(sum(values) - value) <= 1e-4 * (1 + abs(value))
    found = f"a batch has loss {value:.6g}, but its parts (of which the last is empty) have {values}"
    mend = "Sum over the rows, or divide their sum by `batch.global_size`: each process holds a part of the batch."
    require(adds_up, "loss", found, mend)


def _meets_a_second_block(factory: Factory) -> None:
    model = met(factory)
    twin = deepcopy(model)
    for seed, grown in enumerate((model, twin)):
        grown.meet(history(1), "neighbours", 3, torch.Generator().manual_seed(seed))
    found = f"sizes and block are {sizes_of(model)}, not {(*SIZES[1], 1)}"
    require(sizes_of(model) == (*SIZES[1], 1), "second block", found, "Call `super().meet`.")
    random = [name for name, value in model.named_parameters() if not torch.equal(value, tiny.tensors_of(twin)[name])]
    mend = "Register every table with `add_rows` and call `super().meet`, so that they begin from their neighbours."
    require(not random, "second block", f"new rows of {random} stayed random", mend)
    scores = scored(model)
    found = f"scores of everybody have shape {tuple(scores.shape)} or are not finite"
    fits = scores.shape == SIZES[1] and bool(scores.isfinite().all())
    require(fits, "second block", found, "Renew in `observe` whatever has the size of the catalogue.")


def _restores_its_state(factory: Factory) -> None:
    model, fresh, file = met(factory, last=1), factory(), io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    try:
        fresh.load_state_dict(torch.load(file, weights_only=True))
    except Exception as error:
        found = f"state: a new model cannot load it ({' '.join(str(error).split())})"
        raise BackboneContractError(f"{found}. Keep tensors alone in it, in tables of `add_rows`.") from error
    fresh.observe(history(1))
    found = f"sizes and block {sizes_of(model)} came back as {sizes_of(fresh)}"
    require(sizes_of(fresh) == sizes_of(model), "state", found, "Extend `get_extra_state`, do not replace it.")
    mend = "Make what they depend on a parameter or a buffer, or renew it in `observe`."
    require(close(scored(fresh), scored(model)), "state", "restored scores differ", mend)


def _learns_and_scores_its_present_state(factory: Factory) -> None:
    model, fresh = met(factory), factory()
    before = tiny.lead(model)
    losses = [step(model) for _ in range(60)]
    found = f"60 steps of Adam led from {losses[0]:.6g} to {losses[-1]:.6g}"
    require(losses[-1] < losses[0], "loss", found, "Check that it depends on the parameters.")
    fresh.load_state_dict(model.state_dict())
    fresh.observe(history(0))
    mend = "Drop in `shared` what scores keep from before: a fused optimizer does not count up a tensor's version."
    require(close(scored(model), scored(fresh)), "scores", "after a training step they are outdated", mend)
    found = f"as it fell, observed items' lead in the scores went from {before:.6g} to {tiny.lead(model):.6g}"
    require(tiny.lead(model) > before, "loss", found, "Check its sign.")


def _copies_are_independent(factory: Factory) -> None:
    model = met(factory)
    before, twin = scored(model), deepcopy(model)
    for _ in range(3):
        step(twin)
    mend = "Let `copy.deepcopy` copy every parameter: proxies are copies."
    require(torch.equal(scored(model), before), "copy", "training a copy changed the original", mend)
    require(not torch.equal(scored(twin), before), "copy", "training a copy did not change its scores", mend)


def _forgets(factory: Factory) -> None:
    model = met(factory)
    step(model)
    fresh = factory()
    for forgetful in (model, fresh):
        forgetful.reset(torch.Generator().manual_seed(0))
        found = f"sizes and block are {sizes_of(forgetful)}, not (0, 0, -1)"
        require(sizes_of(forgetful) == (0, 0, -1), "reset", found, "Call `super().reset`.")
        forgetful.meet(history(0), "neighbours", 3, torch.Generator().manual_seed(1))
    mend = "Set every parameter, buffer and cache anew in `reset`, from its generator."
    require(close(scored(model), scored(fresh)), "reset", "a trace of the past is left in the scores", mend)


def _can_be_exported(factory: Factory) -> None:
    model = met(factory)
    scorer = scorer_of(model)
    with torch.no_grad():
        same = close(scorer(torch.arange(model.num_users)), scored(model))
    mend = "Let `factors` (by default `embeddings`) say what `scores` does, or return None."
    require(same, "export", "the tables of `factors` do not give the scores", mend)
    try:
        program = trace(scorer)
        program_bytes(program)
    except Exception as error:
        found = f"export: `scores` of {type(model).__name__} cannot be traced by torch.export ({reason_of(error)})"
        raise BackboneContractError(f"{found}. In `scores`, {TRACEABLE}; or define `factors`.") from error
    if not missing_packages():
        _can_be_written_as_onnx(program, scorer, model)


def _can_be_written_as_onnx(program: ExportedProgram, scorer: nn.Module, model: Backbone) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            write_onnx(program, path)
            same = same_lists(path, scorer, model.num_users, model.num_items)
        except Exception as error:
            found = f"export: ONNX has no way to say what `scores` of {type(model).__name__} does ({reason_of(error)})"
            raise BackboneContractError(f"{found}. Use other torch operations there, or define `factors`.") from error
    require(same, "export", "the lists of its ONNX file differ from the model's", "Define `factors`.")
