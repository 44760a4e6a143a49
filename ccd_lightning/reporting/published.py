"""What the paper reports, as context for one's own runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ccd_lightning.reporting import markup

PUBLISHED: Mapping[str, Mapping[str, Sequence[float]]] = {
    "yelp": {"teacher": (0.004, 0.024, 0.034, 0.039, 0.036), "student": (0.010, 0.008, 0.010, 0.011, 0.010)},
    "gowalla": {"teacher": (0.007, 0.024, 0.027, 0.032, 0.034), "student": (0.003, 0.011, 0.024, 0.027, 0.026)},
}
"""Stream -> model -> gain in H-mean of Recall@20 over the paper's best competitor after D_1, ..., D_5, read off its figures
(Lee, Kang, Kweon, Yu, KDD 2024)."""

_SIZES = ("users", "items", "train", "valid", "test")
_FIRST_BLOCKS: Mapping[tuple[Any, ...], str] = {
    (11534, 10782, 117367, 15189, 15197): "yelp",
    (19095, 39149, 417977, 47398, 47409): "gowalla",
}


def stream_of(manifest: Mapping[str, Any]) -> str | None:
    """Which of the paper's streams a run learns, told by the sizes of its D_0, whatever its file is called.

    Args:
        manifest: content of ``stream.json``.

    >>> first = {"users": 11534, "items": 10782, "train": 117367, "valid": 15189, "test": 15197}
    >>> stream_of({"blocks": [first]}), stream_of({"blocks": [{**first, "users": 9}]})
    ('yelp', None)
    """
    sizes = tuple(manifest["blocks"][0].get(name) for name in _SIZES) if manifest["blocks"] else ()
    return _FIRST_BLOCKS.get(sizes)


def published_section(manifest: Mapping[str, Any]) -> str:
    """The paper's gains, where the run learns one of its streams; a gain needs a baseline, so none of the run's is beside."""
    stream = stream_of(manifest)
    if stream is None:
        return ""
    gains = PUBLISHED[stream]
    head = ["gain", *(f"D{block}" for block in range(1, len(gains["teacher"]) + 1))]
    rows = [[model, *(f"{value:+.3f}" for value in values)] for model, values in gains.items()]
    return markup.section(
        f"The paper on {stream}",
        "Gains in H-mean of recall@20 over the best of the paper's own competitors, read off its figures: context, since its"
        " models and settings are its own. A single run has no gain; train.py compare RUN BASELINE --baseline BASELINE"
        " draws that of a run, with the paper's dashed beside it.",
        markup.table(head, rows),
    )
