"""What the knowledge transfer can be told, as typed values of a configuration."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from ccd_lightning.checks import by_block, require_number, require_whole
from ccd_lightning.objectives import per_block


@dataclass
class GenerationSettings:
    """Stage 1: how the student learns the teacher system's rankings.

    Args:
        user_weight: weight of the users' lists; 0 leaves them out.
        item_weight: weight of the items' lists; 0 leaves them out.
        list_length: interesting entities of a list.
        sample: uninteresting entities drawn for each batch; null takes the whole catalogue.
        propagated: distil into the final embeddings of a graph model rather than its layer 0.
        warm_start: on D_1, D_2, ... begin with the updated student in place of a fresh one.
        exclusion: places of the rankings of student and proxies that are not uninteresting either; 0 for none.
    """

    user_weight: float = 0.01
    item_weight: float = 0.01
    list_length: int = 40
    sample: int | None = None
    propagated: bool = False
    warm_start: bool = True
    exclusion: int = 0

    def __post_init__(self) -> None:
        """Refuse values that no distillation can run with."""
        require_number("user_weight", self.user_weight, least=0)
        require_number("item_weight", self.item_weight, least=0)
        require_whole("list_length", self.list_length, 1)
        require_whole("exclusion", self.exclusion, 0)
        if self.sample is not None:
            require_whole("sample", self.sample, 1)


@dataclass
class ReplaySettings:
    """What is replayed into the student; lists hold one value for each block k = 1, 2, ....

    Args:
        top_n: places of a source's ranking from which pairs are drawn.
        stability: pairs a user from the stability proxy; 0 leaves it out.
        plasticity: pairs a user from the plasticity proxy.
        eps: sharpness of the rank discrepancy; 0 draws uniformly.
        scale: weight at the first epoch.
        decay: epochs over which the weight falls by e; null keeps it as it is.
    """

    top_n: int | list[int] = 100
    stability: int | list[int] = 3
    plasticity: int | list[int] = 3
    eps: float = 1e-4
    scale: float = 0.5
    decay: float | None = 10.0

    def __post_init__(self) -> None:
        """Refuse values that nothing can be replayed with."""
        for name, value in by_block("top_n", self.top_n):
            require_whole(name, value, 1)
        for source in self.samples():
            for name, value in by_block(source, self.samples()[source]):
                require_whole(name, value, 0)
            self._require_enough_places(source)
        require_number("eps", self.eps, least=0)
        require_number("scale", self.scale, least=0)
        if self.decay is not None:
            require_number("decay", self.decay, above=0)

    def samples(self) -> dict[str, int | list[int]]:
        """Pairs a user from each source."""
        return {"stability": self.stability, "plasticity": self.plasticity}

    def _require_enough_places(self, source: str) -> None:
        """Pairs are drawn without replacement from the first places."""
        samples = self.samples()[source]
        lengths = [len(value) for value in (self.top_n, samples) if isinstance(value, list)]
        for block in range(1, max(lengths, default=1) + 1):
            drawn, places = per_block(samples, block), per_block(self.top_n, block)
            if drawn > places:
                raise ValueError(
                    f"`{source}` is {drawn} at block {block}, but pairs are drawn from `top_n` = {places} places: raise"
                    f" `top_n`, or draw at most as many."
                )


@dataclass
class TeacherReplaySettings(ReplaySettings):
    """What is replayed into the teachers: as into the student, and what the updated student itself ranks high.

    Args:
        student: pairs a user from the updated student; 0 leaves it out.
    """

    decay: float | None = 5.0
    student: int | list[int] = 3

    @override
    def samples(self) -> dict[str, int | list[int]]:
        """Pairs a user from each source."""
        return {**super().samples(), "student": self.student}


@dataclass
class GraphSettings:
    """How embedding teachers hold on to their past (LWC-KD, PIW) and auto-encoders to their old outputs.

    Args:
        weight: weight of the contrastive losses; 0 leaves graph distillation out.
        personal: scale the losses by personal imitation weights (PIW), for teachers with `clusters`.
        cluster_weight: weight of the cluster loss of these weights.
        temperature: of the contrastive softmax.
        sample: old entities drawn in each step, from which the softmaxes' denominators are estimated without bias beside
            the exact part of a row's own neighbours; null sums over all old entities.
        output_weight: weight of an auto-encoder's KL to its old outputs; 0 leaves it out.
    """

    weight: float = 0.0
    personal: bool = True
    cluster_weight: float = 1.0
    temperature: float = 5.0
    sample: int | None = None
    output_weight: float = 0.01

    def __post_init__(self) -> None:
        """Refuse values that no contrast can be computed with."""
        for name in ("weight", "cluster_weight", "output_weight"):
            require_number(name, getattr(self, name), least=0)
        require_number("temperature", self.temperature, above=0)
        if self.sample is not None:
            require_whole("sample", self.sample, 1)
