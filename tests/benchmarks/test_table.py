from __future__ import annotations

from benchmarks.cases import Seconds
from benchmarks.table import HEAD, Findings


def test_a_case_without_a_baseline_has_no_ratio():
    alone, paired = Seconds(None, 450.0, "", target=1200.0), Seconds(2.0, 0.5, "a plain loop", least=0.25)
    rows = Findings("a stream", {"alone": alone, "paired": paired, "skipped": "no data"}).cells()
    first, second, third = (dict(zip(HEAD, row, strict=True)) for row in rows)
    assert (first["baseline s"], first["ours s"], first["ratio"], first["aim s"]) == ("", "450.0000", "", "1200")
    assert (second["ratio"], second["least s"], second["aim s"]) == ("0.250", "0.2500", "")
    assert third["note"] == "skipped: no data"
