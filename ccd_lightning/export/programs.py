"""Top items as a program: from rows of users to rows of items, without ccd-lightning."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from typing_extensions import override

from ccd_lightning.backbones import Backbone
from ccd_lightning.functional import count_higher
from ccd_lightning.modules.teacher import TeacherSystem

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""What writing and trying an ONNX model needs; the extra `export` brings them."""

TRACEABLE = "take sizes from `users.shape[0]` in place of `len(users)`, and let no Python number, loop or `if` depend on the users"
"""What `scores` must do to be traced."""

INPUTS, OUTPUTS = ("users", "k", "exclude"), ("items", "scores")

_TOLERANCE = 1e-4
_TRIED_USERS = 16
_LONGEST_REASON = 200


class FactorScorer(nn.Module):
    """Scores from a backbone's factors.

    Args:
        users: float ``(U, d)``.
        items: float ``(I, d)``.
        offsets: float ``(I,)``, added to each user's scores; ``None`` adds nothing.
    """

    def __init__(self, users: Tensor, items: Tensor, offsets: Tensor | None = None) -> None:
        super().__init__()
        self.users: Tensor
        self.items: Tensor
        self.offsets: Tensor | None
        for name, table in (("users", users), ("items", items), ("offsets", offsets)):
            self.register_buffer(name, None if table is None else table.detach().float().cpu().contiguous())

    @override
    def forward(self, users: Tensor) -> Tensor:
        scores = self.users[users] @ self.items.T
        return scores if self.offsets is None else scores + self.offsets


class TracedScorer(nn.Module):
    """Scores of a backbone without factors: whatever its `scores` does.

    Args:
        backbone: the model, of which a copy is kept.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = deepcopy(backbone).cpu().eval()

    @override
    def forward(self, users: Tensor) -> Tensor:
        return self.backbone.scores(users).float()


class FusedScorer(nn.Module):
    """Rank fusion of several scorers: the mean of ``(rank + 1)^-power`` (Lee et al., KDD 2024, teacher system).

    Args:
        members: modules from int64 ``(B,)`` to float ``(B, >= num_items)``.
        num_items: items that every member knows.
        power: exponent of the rank fusion.
    """

    def __init__(self, members: list[nn.Module], num_items: int, power: float) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        places = torch.arange(1, num_items + 1, dtype=torch.float64)
        self.importance: Tensor
        self.register_buffer("importance", places.pow(-power).float())

    @override
    def forward(self, users: Tensor) -> Tensor:
        fused = []
        for member in self.members:
            scores = member(users)[:, : len(self.importance)]
            # Ties go to the lower item, as in `fuse_ranks`; torch's own top-K leaves them open.
            order = (-scores).sort(dim=1, stable=True).indices
            fused.append(torch.zeros_like(scores).scatter(1, order, self.importance.expand_as(scores)))
        return torch.stack(fused).mean(0)


class TopItems(nn.Module):
    """The best items of some users, without those that are excluded.

    Args:
        scorer: from int64 ``(B,)`` to float ``(B, I)``.
    """

    def __init__(self, scorer: nn.Module) -> None:
        super().__init__()
        self.scorer = scorer

    @override
    def forward(self, users: Tensor, k: Tensor, exclude: Tensor) -> tuple[Tensor, Tensor]:
        """Rank the catalogue.

        Args:
            users: rows of users, int64 ``(B,)``.
            k: places, an int64 scalar from 1 to the number of items.
            exclude: rows of items that a user shall not get, int64 ``(B, E)``; -1 is padding, and E may be 0.

        Returns:
            items, int64 ``(B, k)``, best first, and scores, float ``(B, k)``, -inf where only excluded items are left.
        """
        scores = self.scorer(users)
        size = scores.shape[1]
        # Padding goes into one more column, which is cut off again.
        columns = torch.where(exclude < 0, size, exclude)
        scores = nn.functional.pad(scores, (0, 1)).scatter(1, columns, -torch.inf)[:, :size]
        places = cast(int, k.item())
        torch._check(places >= 1)  # type: ignore[no-untyped-call]
        torch._check(places <= size)  # type: ignore[no-untyped-call]
        values, items = scores.topk(places)
        return items, values


@torch.no_grad()
def scorer_of(model: Backbone | TeacherSystem) -> nn.Module:
    """A recommender as a module of its own, from rows of users to scores of all items.

    Args:
        model: a trained backbone, or the teacher system.
    """
    if isinstance(model, TeacherSystem):
        return FusedScorer([scorer_of(member) for member in model.members], model.num_items, model.power).eval()
    factors = model.eval().factors()
    return (TracedScorer(model) if factors is None else FactorScorer(*factors)).eval()


@torch.no_grad()
def trace(scorer: nn.Module) -> ExportedProgram:
    """Trace :class:`TopItems` for any number of users and of excluded items; raises whatever the tracing raises.

    Args:
        scorer: from int64 ``(B,)`` to float ``(B, I)``; it must know three users and items.
    """
    batch, excluded = Dim("batch"), Dim("excluded")
    shapes = {"users": {0: batch}, "k": {}, "exclude": {0: batch, 1: excluded}}
    sample = (torch.tensor([0, 1, 2]), torch.tensor(2), torch.tensor([[0, -1], [1, 2], [-1, -1]]))
    return torch.export.export(TopItems(scorer).eval(), sample, dynamic_shapes=shapes)


def program_bytes(program: ExportedProgram) -> bytes:
    """A traced program as the content of a file for `torch.export.load`.

    Args:
        program: what :func:`trace` returned.
    """
    content = io.BytesIO()
    with _quiet():
        torch.export.save(program, content)
    return content.getvalue()


def missing_packages() -> list[str]:
    """Packages for ONNX that are not installed."""
    return [name for name in ONNX_PACKAGES if find_spec(name) is None]


def write_onnx(program: ExportedProgram, path: Path) -> None:
    """Write a traced program as one ONNX file; raises whatever the conversion raises.

    Args:
        program: what :func:`trace` returned.
        path: the file.
    """
    with _quiet():
        converted = torch.onnx.export(
            program,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamo=True,
            verbose=False,
            # torch knows no translation of its own.
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
        )
        assert converted is not None
        converted.save(path, external_data=False)


def _stable_sort(scores: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """A stable sort in ONNX, which has none: its top-K of all the items does the same, since it breaks ties by the lower item."""
    from onnxscript import opset18 as onnx

    axis: Any = onnx.Constant(value_ints=[dim])
    return onnx.TopK(scores, onnx.Gather(onnx.Shape(scores), axis), axis=dim, largest=int(descending))


def score_bounds(scorer: nn.Module, users: Tensor) -> tuple[Tensor, Tensor]:
    """The scores that a program may give which differs from a scorer by the order of float sums alone.

    Where members score items nearly alike, such a program may rank them the other way round, and fused scores then move by
    whole places; so the ranks that an item may have bound its fused score.

    Args:
        scorer: from int64 ``(B,)`` to float ``(B, I)``.
        users: rows of users, int64 ``(B,)``.

    Returns:
        The lowest and the highest scores, float ``(B, I)`` each.
    """
    if isinstance(scorer, FusedScorer):
        size = len(scorer.importance)
        lowest, highest = [], []
        for member in scorer.members:
            low, high = (bound[:, :size] for bound in score_bounds(member, users))
            highest.append(scorer.importance[count_higher(low, high)])
            lowest.append(scorer.importance[size - 1 - count_higher(-high, -low)])
        low, high = torch.stack(lowest).mean(0), torch.stack(highest).mean(0)
    else:
        low = high = scorer(users)
    return low - _slack(low), high + _slack(high)


def _slack(scores: Tensor) -> Tensor:
    return _TOLERANCE * (1 + scores.abs().nan_to_num(posinf=0.0))


def same_lists(path: Path, scorer: nn.Module, num_users: int, k: int) -> bool:
    """Whether an ONNX file gives the lists of the scorer that was traced, up to what :func:`score_bounds` allows.

    Args:
        path: the ONNX file.
        scorer: what was traced.
        num_users: users that it knows, some of whom are tried.
        k: places.
    """
    import onnxruntime

    users = torch.arange(num_users)[:: max(1, num_users // _TRIED_USERS)]
    with torch.no_grad():
        low, high = score_bounds(scorer, users)
    values = {"users": users, "k": torch.tensor(k), "exclude": torch.empty(len(users), 0, dtype=torch.long)}
    session: Any = onnxruntime.InferenceSession(path)
    items, scores = map(torch.from_numpy, session.run(None, {name: value.numpy() for name, value in values.items()}))
    left_out = low.scatter(1, items, -torch.inf)
    return bool(
        ((low.gather(1, items) <= scores) & (scores <= high.gather(1, items))).all()
        and (scores[:, :-1] >= scores[:, 1:]).all()
        and (left_out.amax(1) <= scores[:, -1]).all()
        and all(len(set(row)) == k for row in items.tolist())
    )


def reason_of(error: Exception) -> str:
    """The first line of an error, whose class tells as much as its words.

    >>> reason_of(ValueError("no such shape"))
    'ValueError: no such shape'
    """
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}"[:_LONGEST_REASON]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's words on packages that no recommender needs, and on its own old and shared tensors."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", "No complete tensor")
            yield
    finally:
        logger.setLevel(level)
