"""What a study consists of: methods as overlays of one configuration, and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ccd_lightning.checks import require_whole
from ccd_lightning.reporting.published import PUBLISHED
from ccd_lightning.studies.settings import family_of, merged_settings

MODELS = ("teacher", "student")
"""Who is compared: the teacher system, and the student after its update."""


def model_of(role: str) -> str:
    """Who a measured role is: the distilled student is the student, at the end of the block.

    >>> model_of("distilled"), model_of("teacher")
    ('student', 'teacher')
    """
    return "student" if role == "distilled" else role


@dataclass
class Method:
    """One method of a study.

    Args:
        overlays: configuration files laid over the study's base, one after the other.
        models: whose results the method speaks of; a baseline of teachers alone has no student to show.
    """

    overlays: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=lambda: list(MODELS))

    def __post_init__(self) -> None:
        """Refuse models that no run measures."""
        if not self.models or not set(self.models) <= set(MODELS):
            raise ValueError(f"`models` is {self.models}, but must name some of {', '.join(MODELS)}: mend the list.")


@dataclass
class Study:
    """Methods times seeds; each pair is one `train.py fit` in a folder of its own.

    Args:
        base: configuration files that all the methods share, the first of them a whole configuration.
        methods: name -> method.
        output: folder of the study.
        runs_in: folder of the runs, each in ``<method>-<seed>``; studies that have runs in common can share it. By default
            ``runs`` in the study's folder.
        seeds: seed of each repetition.
        ours: the method that is compared with the baselines.
        baselines: continual baselines; the one that is best on validation is what all the methods are compared with.
        arguments: further arguments of every `fit`, such as ``--data.source.path=...``.
        jobs: runs at a time.
        threads: threads of each run; results depend on them by rounding.
        metric: what the tables show.
        published: model -> published gain in H-mean after D_1, D_2, ..., drawn beside the measured one; or the name of one of
            the paper's streams, whose gains are known.
    """

    base: list[str]
    methods: dict[str, Method]
    output: str
    runs_in: str | None = None
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    ours: str = "ccd"
    baselines: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    jobs: int = 1
    threads: int = 1
    metric: str = "recall@20"
    published: dict[str, list[float]] | str = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be run or compared."""
        require_whole("jobs", self.jobs, 1)
        require_whole("threads", self.threads, 1)
        for name, values in (("base", self.base), ("methods", self.methods), ("seeds", self.seeds)):
            if not values:
                raise ValueError(f"`{name}` is empty, but a study needs at least one: name some.")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"`seeds` is {self.seeds}, but each seed counts once: leave the repeated ones out.")
        strangers = [name for name in (self.ours, *self.baselines) if name not in self.methods]
        if strangers:
            raise ValueError(
                f"`ours` and `baselines` name {', '.join(strangers)}, but the methods are {', '.join(self.methods)}: name"
                " some of these."
            )
        if not set(self.published_gains) <= set(MODELS):
            raise ValueError(
                f"`published` names {', '.join(self.published_gains)}, but gains are of {', '.join(MODELS)}: mend the names."
            )
        for name in self.methods:
            if not name.replace("_", "").isalnum():
                raise ValueError(
                    f"A method is called {name!r}, but names become folders: use letters, digits and underscores."
                )

    @property
    def folder(self) -> Path:
        """Where the study is kept."""
        return Path(self.output)

    @property
    def published_gains(self) -> Mapping[str, Sequence[float]]:
        """Model -> published gain after D_1, D_2, ...

        Raises:
            ValueError: if the paper has no such stream.
        """
        if not isinstance(self.published, str):
            return self.published
        if self.published not in PUBLISHED:
            raise ValueError(
                f"`published` is {self.published!r}, but the paper's streams are {', '.join(PUBLISHED)}: name one of them, or"
                " give the gains of each model."
            )
        return PUBLISHED[self.published]

    @property
    def pool(self) -> Path:
        """Where the runs lie."""
        return self.folder / "runs" if self.runs_in is None else Path(self.runs_in)

    @cached_property
    def runs(self) -> list[Run]:
        """Every run, all the methods of a seed before those of the next."""
        settings = {name: merged_settings([*self.base, *method.overlays]) for name, method in self.methods.items()}
        return [
            Run(
                method=name,
                seed=seed,
                folder=self.pool / f"{name}-{seed}",
                files=[*self.base, *method.overlays],
                arguments=self.arguments,
                settings=settings[name],
            )
            for seed in self.seeds
            for name, method in self.methods.items()
        ]


@dataclass(frozen=True)
class Run:
    """One method with one seed.

    Args:
        method: its name.
        seed: the run's seed.
        folder: the run's folder.
        files: configuration files in the order in which they are laid over each other.
        arguments: further arguments of `fit`.
        settings: what the files say together.
    """

    method: str
    seed: int
    folder: Path
    files: list[str]
    arguments: list[str]
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """Unique in the study."""
        return self.folder.name

    @property
    def family(self) -> str:
        """Runs of one family do the same on D_0."""
        return f"{family_of(self.settings)}-{self.seed}"

    def command(self, ckpt_path: Path | str | None) -> list[str]:
        """Arguments of the command line.

        Args:
            ckpt_path: where to go on; ``None`` begins.
        """
        files = [part for file in self.files for part in ("--config", file)]
        own = [f"--seed_everything={self.seed}", f"--trainer.default_root_dir={self.folder}"]
        resumed = [] if ckpt_path is None else [f"--ckpt_path={ckpt_path}"]
        return ["fit", *files, *self.arguments, *own, *resumed]
