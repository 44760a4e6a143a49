"""What did not go as wished in a run, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ccd_lightning.reporting.tables import Summary

NONE = (
    "Nothing that the run has recorded: no stop, no file that could not be read, no unknown user, no repeated row, no stage"
    " that stayed at its first evaluation, no block without validation or test rows."
)


def troubles(summary: Summary, manifest: Mapping[str, Any]) -> list[str]:
    """What is missing or went wrong, one sentence each; files of earlier releases tell less.

    Args:
        summary: content of ``metrics.json``.
        manifest: content of ``stream.json``.
    """
    found = (_missing, _stops, _torn, _silent, _idle, _repeats)
    return [*(text for tell in found for text in tell(manifest)), *_unknown(summary)]


def asked_users(summary: Summary, manifest: Mapping[str, Any]) -> str:
    """Of how many users the metrics on each block speak."""
    rows = summary.get("users", {}).get("teacher", [])
    counts = [
        f"{row[block]['users']:,} of {manifest['blocks'][block]['users']:,} in D{block}"
        for block, row in enumerate(rows[: len(manifest["blocks"])])
    ]
    listed = ", ".join(counts)
    return (
        f"Metrics on a block are means over those known users who have a test item in it: {listed}." if counts else ""
    )


def _missing(manifest: Mapping[str, Any]) -> Iterator[str]:
    waiting = []
    for index, block in enumerate(manifest["blocks"]):
        stages = block.get("stages", [])
        if not block["finished"] and stages:
            yield f"D{index} is not finished: {_names(stages)} done, the rest of its stages and metrics missing."
        elif not block["finished"]:
            waiting.append(f"D{index}")
    if waiting:
        yield f"{', '.join(waiting)} {'is' if len(waiting) == 1 else 'are'} not begun."


def _stops(manifest: Mapping[str, Any]) -> Iterator[str]:
    places = _places(manifest, "resumed")
    if places:
        times = "once" if len(places) == 1 else f"{len(places)} times"
        yield f"Stopped and gone on with {times}, behind {', '.join(places)}."


def _torn(manifest: Mapping[str, Any]) -> Iterator[str]:
    files = _places(manifest, "unreadable")
    if files:
        yield f"Files that could not be read and were passed over for older ones: {', '.join(files)}."


def _places(manifest: Mapping[str, Any], what: str) -> list[str]:
    return [event["where"] for event in manifest.get("events", []) if event["what"] == what]


def silences(valid: int, test: int) -> list[str]:
    """What follows where a block asks nobody.

    >>> silences(valid=120, test=0)
    ['without test rows: there is no metric on it, and the averages leave it out']
    """
    consequences = {
        "valid": "its stages take all their epochs and keep their last state",
        "test": "there is no metric on it, and the averages leave it out",
    }
    counts = {"valid": valid, "test": test}
    return [f"without {split} rows: {text}" for split, text in consequences.items() if not counts[split]]


def _silent(manifest: Mapping[str, Any]) -> Iterator[str]:
    for index, block in enumerate(manifest["blocks"]):
        yield from (f"D{index} is {text}." for text in silences(block.get("valid", 1), block.get("test", 1)))


def _idle(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Stages that returned to the state of their first evaluation; a single evaluation compares with nothing."""
    stages = [stage for block in manifest["blocks"] for stage in block.get("stages", [])]
    courses = [(stage, stage.get("recalls", [])) for stage in stages]
    idle = [stage for stage, recalls in courses if len(recalls) > 1 and max(recalls) <= recalls[0]]
    if idle:
        yield f"Kept the state of their first evaluation, since none after it was better, which does no harm: {_names(idle)}."


def _names(stages: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(stage["name"] for stage in stages)


def _repeats(manifest: Mapping[str, Any]) -> Iterator[str]:
    dropped = [(index, block.get("repeats_dropped", 0)) for index, block in enumerate(manifest["blocks"])]
    listed = [f"{count:,} in D{index}" for index, count in dropped if count]
    if listed:
        yield f"Repeated (user, item) rows that were dropped: {', '.join(listed)}."


def _unknown(summary: Summary) -> Iterator[str]:
    for role, name in (("teacher", "teacher system"), ("student", "student")):
        rows = summary.get("users", {}).get(role, [])
        counts = [(block, row[block]["unknown_users"]) for block, row in enumerate(rows)]
        listed = [f"{count:,} in D{block}" for block, count in counts if count]
        if listed:
            yield f"Test users unknown to the {name} when their block ended, each counted as 0: {', '.join(listed)}."
