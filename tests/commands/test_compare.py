"""Runs side by side: the numbers of their files, gains as plain differences, and kind refusals."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest

from ccd_lightning.cli import main
from ccd_lightning.record import ROLES


def write_run(folder: Path, h_means: list[float], **settings: object) -> Path:
    folder.mkdir(parents=True)
    curves = {name: h_means for name in ("LA", "RA", "H")} | {"forgetting": [0.0] * len(h_means)}
    summary = {role: {"recall@20": curves} for role in ROLES}
    (folder / "metrics.json").write_text(json.dumps({**summary, "seconds": {"base": [90.0]}, "peak_bytes": 5_000_000}))
    models = {role: {"bytes": size} for role, size in (("teacher", 4_000_000), ("student", 20_000))}
    blocks = [{"finished": True, "models": models} for _ in h_means]
    (folder / "stream.json").write_text(json.dumps({"blocks": blocks}))
    (folder / "config.yaml").write_text(json.dumps({"model": {"ks": [20]}, "distillation": settings}))
    return folder


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))


def test_page_shows_every_run_and_the_settings_that_differ(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", [0.5, 0.4375], exclusion=40, sample=7)
    # One that is further, and whose name would be markup.
    second = write_run(tmp_path / "<second>", [0.25, 0.3125, 0.9], exclusion=0, sample=7)
    page = tmp_path / "page.html"
    main(["compare", str(first), str(second), "--output", str(page)])
    text = text_of(page.read_text())
    assert "Student after D1" in text
    assert "first 0.4375 0.4375 0.4375 0.0000 <second> 0.3125 0.3125 0.3125 0.0000" in text
    assert "distillation.exclusion 40 0" in text
    assert "distillation.sample" not in text
    assert "1 min 30 s 4 MB 20 kB 5 MB" in text
    assert "<second>" not in page.read_text()
    assert "Gain over" not in text


def test_runs_of_different_streams_are_told_apart(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, [0.5, 0.4], logger=None, seed=1) for name in ("one", "other")]
    for run in runs:
        manifest = json.loads((run / "stream.json").read_text())
        manifest["blocks"][0]["fingerprint"] = run.name
        (run / "stream.json").write_text(json.dumps(manifest))
    page = tmp_path / "page.html"
    main(["compare", *map(str, runs), "--baseline", str(runs[1]), "--output", str(page)])
    text = text_of(page.read_text())
    assert "do not begin with the same D_0" in text
    assert "Gain over" not in text


def test_a_setting_that_is_null_is_one_that_is_absent(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "one", [0.5], logger=None, sample=7), write_run(tmp_path / "other", [0.5], sample=8)]
    page = tmp_path / "page.html"
    main(["compare", *map(str, runs), "--output", str(page)])
    text = text_of(page.read_text())
    assert "distillation.sample 7 8" in text
    assert "distillation.logger" not in text


def test_gains_are_differences_beside_the_published_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ccd_lightning.reporting import comparison

    drawn = []
    monkeypatch.setattr(comparison, "draw_curves", lambda axes, **of: drawn.append(of))
    ours = write_run(tmp_path / "ours", [0.5, 0.4, 0.3])
    base = write_run(tmp_path / "base", [0.5, 0.1, 0.4])
    command = ["compare", str(ours), str(base), "--baseline", str(base), "--published", "gowalla"]
    main([*command, "--output", str(tmp_path / "page.html")])
    gains = [of for of in drawn if of["first"] == 1]
    assert [of["title"] for of in gains] == ["Teacher", "Student", "Distilled"]
    assert all(of["styles"]["the paper, read off"]["linestyle"] == "--" for of in gains)
    for of in gains:
        assert of["curves"]["ours"] == pytest.approx([0.3, -0.1])
    # The paper tells nothing of the student at the end of a block.
    assert [set(of["curves"]) - {"ours"} for of in gains] == [{"the paper, read off"}, {"the paper, read off"}, set()]
    assert gains[1]["curves"]["the paper, read off"][-1] == 0.026


@pytest.mark.parametrize(("strangers", "shown"), [(0, True), (1, False)])
def test_published_gains_are_drawn_where_all_runs_learn_the_papers_stream(
    tmp_path: Path, strangers: int, shown: bool
) -> None:
    runs = [write_run(tmp_path / name, [0.5, 0.4]) for name in ("ours", "base", "other")[: 2 + strangers]]
    for run in runs[:2]:
        manifest = json.loads((run / "stream.json").read_text())
        manifest["blocks"][0].update(users=11534, items=10782, train=117367, valid=15189, test=15197)
        (run / "stream.json").write_text(json.dumps(manifest))
    page = tmp_path / "page.html"
    main(["compare", *map(str, runs), "--baseline", str(runs[1]), "--output", str(page)])
    assert ("the paper, read off" in text_of(page.read_text())) == shown


def test_page_tells_what_went_wrong_in_each_run(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, [0.5, 0.4]) for name in ("smooth", "stopped")]
    manifest = json.loads((runs[1] / "stream.json").read_text())
    manifest["events"] = [{"what": "resumed", "where": "block1-student_update"}]
    (runs[1] / "stream.json").write_text(json.dumps(manifest))
    summary = json.loads((runs[0] / "metrics.json").read_text())
    (runs[0] / "metrics.json").write_text(json.dumps({**summary, "overlap": {"top@20": [None, 0.5]}}))
    page = tmp_path / "page.html"
    main(["compare", *map(str, runs), "--output", str(page)])
    text = text_of(page.read_text())
    assert "smooth Nothing that the run has recorded" in text
    assert "stopped Stopped and gone on with once, behind block1-student_update." in text
    assert "Agreement" in text


def test_page_needs_no_network(tmp_path: Path) -> None:
    run, page = write_run(tmp_path / "run", [0.5, 0.4]), tmp_path / "page.html"
    main(["compare", str(run), "--output", str(page)])
    # Lines of a figure name their points by their places in it; nothing else is named.
    assert all(target.startswith("#") for target in re.findall(r"(?:src|href)=[\"']([^\"']*)", page.read_text()))
    assert "@import" not in page.read_text() and "url(http" not in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], r"absent is no run's folder: expected `metrics.json` .* Name folders such as runs/ccd"),
        (["empty"], "empty has measured nothing yet: wait until its first stage is done"),
        (["run", "other/run"], "The runs are called run, run, but need different names"),
        (["run", "--baseline", "ruin"], r"The baseline ruin is not among the runs; did you mean `run`\?"),
        (["run", "--published", "yelpp"], "published"),
        ([], "runs"),
    ],
)
def test_mistakes_end_in_one_message_and_no_page(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", [0.5])
    write_run(tmp_path / "other" / "run", [0.5])
    (write_run(tmp_path / "empty", [0.5]) / "metrics.json").write_text(json.dumps({role: {} for role in ROLES}))
    with pytest.raises(SystemExit) as error:
        main(["compare", *arguments])
    assert error.value.code == 2
    told = capsys.readouterr().err
    assert re.search(message, told)
    assert told.count("error:") == 1 and "Traceback" not in told
    assert not (tmp_path / "comparison.html").exists()


def test_a_damaged_configuration_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path / name, [0.5, 0.4]) for name in ("whole", "damaged")]
    (runs[1] / "config.yaml").write_text("a: [1, 2\nb: {")
    with pytest.raises(SystemExit) as ended:
        main(["compare", *map(str, runs), "--output", str(tmp_path / "page.html")])
    assert ended.value.code == 2
    told = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert re.search("damaged/config.yaml is no configuration .*leave the run out", told), told
