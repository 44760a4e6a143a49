"""What a finished run replays, and how evenly: `python -m benchmarks.replay_sets RUN`.

Takes the models as they stand after the last teachers' update, when what was forgotten is largest, and asks of each source of
replay how far its best items have fallen in the learning model's ranking, how unequal that makes their chances to be drawn, and how
many of them are right: held-out items of the blocks before. Nothing is learned, and nothing is written.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.__main__ import YELP
from ccd_lightning import functional as F
from ccd_lightning.backbones import Backbone, LightGCN
from ccd_lightning.checkpoint import read_checkpoint
from ccd_lightning.data import BlockTable, ContinualDataModule, PairSet
from ccd_lightning.modules import PROXIES
from ccd_lightning.objectives import Rankings, top_items
from ccd_lightning.types import Interactions

TOP, EPS, CHUNK = 100, 1e-4, 512


class Replayed(NamedTuple):
    """How a source's entries stand in the learner's ranking.

    Attributes:
        fallen: rank by the learner less the source's, quantiles 0.1, 0.5, 0.9 and 0.99 over all entries.
        evenness: share of the entries that would carry all the weight, were it equal: 1 where all have the same chance.
        gain: expected fall of an entry that is drawn, over that of one drawn uniformly.
        right: share of held-out items of earlier blocks among the entries, and among those drawn by weight.
    """

    fallen: list[float]
    evenness: float
    gain: float
    right: tuple[float, float]


def main() -> None:
    """Print one table, a row a learner and source."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run whose models are all LightGCN")
    parser.add_argument("--data", type=Path, default=YELP, help="the block table that it learned")
    parser.add_argument("--eps", type=float, default=EPS, help="sharpness of the rank discrepancy")
    chosen = parser.parse_args()
    stream = ContinualDataModule(BlockTable(str(chosen.data)))
    models = models_of(chosen.run, stream)
    block = len(stream.blocks) - 1
    observed, held_out = stream.history(block).observed("cumulative"), held_out_before(stream, block)
    sources = {
        name: top_items(models[name], TOP, observed, torch.device("cpu")) for name in models if "teacher" not in name
    }
    head = (
        "learner",
        "source",
        "fallen by, 10%",
        "50%",
        "90%",
        "99%",
        "evenness",
        "fall of drawn / all",
        "right",
        "drawn",
    )
    table = Table(*head, title=f"{chosen.run.name}, top {TOP}, eps {chosen.eps:g}")
    for learner, names in (("student", PROXIES), ("teacher 0", tuple(sources))):
        for name in names:
            found = ranks_by(models[learner], sources[name].items)
            row = replayed(sources[name], found, chosen.eps, held_out)
            fallen = [f"{value:,.0f}" for value in row.fallen]
            right = [f"{share:.4f}" for share in row.right]
            table.add_row(learner, name, *fallen, f"{row.evenness:.4f}", f"{row.gain:.3f}", *right)
    Console(width=140).print(table)


def models_of(run: Path, stream: ContinualDataModule) -> dict[str, Backbone]:
    """Student, proxies and first teacher after the last teachers' update."""
    found = sorted((run / "checkpoints").glob("*-teacher_update-*.ckpt"))
    if not found:
        raise SystemExit(f"Found no checkpoint of a teachers' update in {run}, expected that of the last block.")
    state = read_checkpoint(found[-1])["system"]
    prefixes = {"student": "student.backbone.", "teacher 0": "teachers.0.backbone."}
    prefixes |= {name: f"proxies.{name}." for name in PROXIES}
    models: dict[str, Backbone] = {}
    for name, prefix in prefixes.items():
        tables = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        model = LightGCN(tables["user_embedding"].shape[1], graph="cumulative" if "teacher" in name else "block")
        model.load_state_dict(tables)
        # The proxies were merged before the student met the last block.
        model.observe(stream.history(model.known_block))
        models[name] = model
    return models


def held_out_before(stream: ContinualDataModule, block: int) -> PairSet:
    """Validation and test pairs of all blocks before one."""
    parts = [part for one in stream.blocks[:block] for part in (one.valid, one.test)]
    last = stream.blocks[block]
    return PairSet.from_interactions(Interactions.concatenate(parts), last.num_users, last.num_items)


def ranks_by(learner: Backbone, items: Tensor) -> Tensor:
    """Rank by the learner of each listed item among all items, int64 of the list's shape."""
    users = torch.arange(len(items)).split(CHUNK)
    return torch.cat([F.ranks_of(learner.scores(some), items[some].clamp_min(0)) for some in users])


def replayed(source: Rankings, ranks: Tensor, eps: float, held_out: PairSet) -> Replayed:
    """Read one source's entries."""
    listed = source.items >= 0
    fall = (ranks - torch.arange(source.items.shape[1])).double()
    weights = (eps * fall).exp() * listed
    chances = weights / weights.sum(1, keepdim=True)
    even = listed / listed.sum(1, keepdim=True)
    places = 1 / (chances**2).sum(1) / listed.sum(1)
    users = torch.arange(len(listed)).unsqueeze(1).expand_as(source.items)
    right = torch.zeros(listed.shape, dtype=torch.double)
    right[listed] = held_out.contains(users[listed], source.items[listed]).double()
    return Replayed(
        [float(value) for value in fall[listed].float().quantile(torch.tensor([0.1, 0.5, 0.9, 0.99]))],
        float(places.mean()),
        float((chances * fall).sum(1).mean() / (even * fall).sum(1).mean()),
        (float((even * right).sum(1).mean()), float((chances * right).sum(1).mean())),
    )


if __name__ == "__main__":
    with torch.no_grad():
        main()
