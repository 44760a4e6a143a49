"""The tables of the report page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ccd_lightning.record import ROLES
from ccd_lightning.reporting.markup import table, tile
from ccd_lightning.reporting.panels import overlap_of
from ccd_lightning.reporting.tables import AVERAGES, Summary
from ccd_lightning.reporting.units import NOTHING, duration, score, size
from ccd_lightning.types import StageKind

TIMES = "\u00d7"
KIND_NAMES = {
    StageKind.BASE.value: "base training",
    StageKind.STUDENT_UPDATE.value: "student update",
    StageKind.TEACHER_UPDATE.value: "teacher update",
    StageKind.DISTILLATION.value: "distillation",
}
MODEL_NAMES = {"teacher": "teacher system", "student": "student"}


def key_numbers(summary: Summary, manifest: Mapping[str, Any], metric: str) -> str:
    """Tiles: what each role has reached, and what the student saves."""
    tiles = [
        tile(score(summary[role][metric]["H"][-1]), f"H-mean of {metric}, {role}", role)
        for role in ROLES
        if metric in summary[role]
    ]
    models = _latest_models(manifest)
    if models:
        teacher, student = models["teacher"], models["student"]
        tiles.append(
            tile(
                f"{teacher['bytes'] / max(student['bytes'], 1):.1f} {TIMES}", "smaller: student against teacher system"
            )
        )
        tiles.append(
            tile(
                f"{teacher['latency_ms'] / max(student['latency_ms'], 1e-9):.1f} {TIMES}",
                "faster: scoring the catalogue",
            )
        )
    shares = [share for share in overlap_of(summary) if share == share]
    if shares:
        tiles.append(tile(f"{shares[-1]:.0%}", "of the teachers' top 20 are in the student's too"))
    if summary["seconds"]:
        tiles.append(tile(duration(sum(map(sum, summary["seconds"].values()))), "training, all stages"))
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def averages_table(summary: Summary, metric: str) -> str:
    """LA, RA and H-mean of every role after each block."""
    measured = {role: summary[role][metric] for role in ROLES if metric in summary[role]}
    if not measured:
        return ""
    head = ["after block", *(f"{role} {name}" for role in measured for name in AVERAGES)]
    count = max(len(found["LA"]) for found in measured.values())
    rows = [
        [str(block), *(_at(found[name], block) for found in measured.values() for name in AVERAGES)]
        for block in range(count)
    ]
    return table(head, rows, f"{metric} on the test split.")


def seconds_table(summary: Summary) -> str:
    """Seconds of each kind of stage in each block."""
    spent: Mapping[str, Sequence[float]] = summary["seconds"]
    if not spent:
        return ""
    blocks = max(map(len, spent.values()))
    kinds = [kind for kind in KIND_NAMES if kind in spent]
    filled = {kind: [*spent[kind], *[0.0] * (blocks - len(spent[kind]))] for kind in kinds}
    rows = [[KIND_NAMES[kind], *_seconds(filled[kind])] for kind in kinds]
    rows.append(["all", *_seconds([sum(column) for column in zip(*filled.values(), strict=True)])])
    head = ["seconds", *(f"D{block}" for block in range(blocks)), "sum"]
    return table(head, rows, f"Peak resident memory of the process: {size(summary['peak_bytes'])}.", total=True)


def _seconds(values: Sequence[float]) -> list[str]:
    return [f"{value:.1f}" if value else NOTHING for value in [*values, sum(values)]]


def models_table(manifest: Mapping[str, Any]) -> str:
    """Size and speed of the teacher system and of the student."""
    models = _latest_models(manifest)
    rows = [
        [
            MODEL_NAMES[name],
            f"{cost['parameters']:,}",
            size(cost["bytes"]),
            f"{cost['latency_ms']:.2f} ms",
        ]
        for name, cost in models.items()
    ]
    if not rows:
        return ""
    users = next(iter(models.values()))["latency_users"]
    caption = f"Bytes at 4 a parameter. Latency: scores of the whole catalogue for {users} users, median of five runs."
    return table(["model", "parameters", "bytes", "latency"], rows, caption)


def _latest_models(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    found: list[Mapping[str, Any]] = [block["models"] for block in manifest["blocks"] if block["models"]]
    return found[-1] if found else {}


def blocks_table(manifest: Mapping[str, Any], summary: Summary) -> str:
    """What the stream consists of, and how many test users the teachers have not met."""
    names = ("users", "items", "new_users", "new_items", "train", "valid", "test", "repeats_dropped")
    head = ["block", *(name.replace("_", " ") for name in names), "unknown test users", "stages done"]
    rows = []
    for block in manifest["blocks"]:
        index = block["index"]
        counts = summary["users"]["teacher"]
        unknown = f"{counts[index][index]['unknown_users']:,}" if index < len(counts) else NOTHING
        done = "all" if block["finished"] else str(len(block["stages"]))
        rows.append([f"D{index}", *(f"{block[name]:,}" for name in names), unknown, done])
    caption = "Unknown test users: not known to the teacher system when the block ended; each counts as 0."
    return table(head, rows, caption)


def replay_table(summary: Summary) -> str:
    """Pairs drawn from each source, stage by stage."""
    replayed: Mapping[str, Mapping[str, int]] = summary["replayed"]
    sources = sorted({source for counts in replayed.values() for source in counts})
    rows = [
        [stage, *(f"{counts[source]:,}" if source in counts else NOTHING for source in sources)]
        for stage, counts in replayed.items()
    ]
    return table(["stage", *sources], rows) if rows else ""


def _at(values: Sequence[float], block: int) -> str:
    return score(values[block]) if block < len(values) else NOTHING
