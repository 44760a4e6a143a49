"""What people read while a stream runs."""

from __future__ import annotations

import io
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ccd_lightning.callbacks import DistillationCallback, StreamCheckpoint, StreamProgress, progress
from ccd_lightning.hooks import StreamCallback
from ccd_lightning.plan import StreamPlan
from ccd_lightning.reporting import screen
from ccd_lightning.reporting.units import NOTHING, size
from ccd_lightning.types import StageSettings

from .conftest import Run, new_stream, new_system, new_trainer


class Terminal(io.StringIO):
    """Stands in for the terminal, or for a log file, that rich writes to."""


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Terminal:
    """What is written; parametrised by (terminal, columns)."""
    terminal, columns = getattr(request, "param", (False, 80))
    written = Terminal()
    monkeypatch.setattr(
        screen,
        "LastingConsole",
        lambda: Console(file=written, force_terminal=terminal, width=columns, color_system=None),
    )
    return written


def run(folder: Path, *callbacks: Any, blocks: int = 2, **options: Any) -> Any:
    trainer = new_trainer(folder, DistillationCallback(), *callbacks, **options)
    trainer.fit(new_system(), datamodule=new_stream(blocks))
    return trainer


def test_progress_leaves_one_line_a_stage_without_a_terminal(tmp_path: Path, output: Terminal) -> None:
    trainer = run(tmp_path, StreamProgress())
    lines = output.getvalue().splitlines()
    stages = [line for line in lines if line.startswith("block")]
    titles = ["teacher 0 base", "teacher 1 base", "student distillation"]
    titles += ["student update", "teacher 0 update", "teacher 1 update", "student distillation"]
    assert [line.split(" · ")[1] for line in stages] == titles
    assert [line.split(" · ")[0] for line in stages] == ["block 0 (1 of 2)"] * 3 + ["block 1 (2 of 2)"] * 4
    for line, entry in zip(stages, trainer.record.stages, strict=True):
        assert f"· {entry['epochs']} epoch in {entry['seconds']:.1f} s ·" in line
        assert re.search(r"loss own [\d.]+", line)
    assert re.search(r"valid recall@20 0\.\d{4}", stages[0])


def test_progress_tells_what_each_role_reached(tmp_path: Path, output: Terminal) -> None:
    summary = run(tmp_path, StreamProgress()).record.summary()
    lines = output.getvalue().splitlines()
    for role in ("teacher", "student", "distilled"):
        found = summary[role]["recall@20"]
        old, new = found["A"][1]
        averages = f"LA {found['LA'][1]:.4f} RA {found['RA'][1]:.4f} H {found['H'][1]:.4f}"
        assert lines.count(f"{role} after block 1: recall@20 D0 {old:.4f} D1 {new:.4f} · {averages}") == 1


def test_progress_shows_losses_as_means_over_the_steps(tmp_path: Path, output: Terminal) -> None:
    seen: list[float] = []

    class Losses(StreamCallback):
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            seen.append(float(trainer.callback_metrics["teacher0/loss/own"]) / trainer.num_training_batches)

        def on_stage_end(self, trainer: Any, system: Any, stage: Any) -> None:
            raise RuntimeError("ENOUGH")

    with pytest.raises(RuntimeError, match="ENOUGH"):
        run(tmp_path, StreamProgress(), Losses())
    line = next(line for line in output.getvalue().splitlines() if line.startswith("block 0"))
    assert float(line.rpartition("own ")[2].partition(" ")[0]) == pytest.approx(seen[0], rel=5e-3)


def test_progress_ends_with_a_table_of_80_columns(tmp_path: Path, output: Terminal) -> None:
    system = new_system()
    trainer = new_trainer(tmp_path, DistillationCallback(), StreamProgress())
    trainer.fit(system, datamodule=new_stream(2))
    text = output.getvalue().partition("test recall@20 after each block")[2]
    assert max(map(len, text.splitlines()[:-1])) <= 80
    found = trainer.record.summary()["distilled"]["recall@20"]
    for name, label in (("LA", "LA"), ("RA", "RA"), ("H", "H-mean")):
        assert re.search(rf"{label}\s+{found[name][0]:.4f}\s+{found[name][1]:.4f}", text)
    spent = trainer.record.seconds
    teacher = [spent["base"][0], spent["teacher_update"][1]]
    assert re.search(rf"seconds +{teacher[0]:.1f} +{teacher[1]:.1f} *\n", text)
    sizes = [size(system.num_parameters(role) * 4) for role in ("teacher", "student")]
    assert [line.split("  ")[-1].strip() for line in text.splitlines() if "bytes" in line] == sizes
    assert f"everything is in {tmp_path}" in text


def test_progress_of_a_resumed_run_knows_the_bytes_of_all_blocks(tmp_path: Path, output: Terminal) -> None:
    run(tmp_path, StreamProgress(), StreamCheckpoint())
    before = [line for line in output.getvalue().splitlines() if "bytes" in line]
    trainer = new_trainer(tmp_path, DistillationCallback(), StreamProgress(), StreamCheckpoint())
    trainer.fit(new_system(), datamodule=new_stream(3), ckpt_path="last")
    after = [line for line in output.getvalue().splitlines() if "bytes" in line][len(before) :]
    assert len(before) == len(after) == 2
    for first, second in zip(before, after, strict=True):
        # D0, D1 and, in the resumed run, D2.
        assert re.findall(r"[\d.]+ [kM]?B", second)[:2] == re.findall(r"[\d.]+ [kM]?B", first)
        assert len(re.findall(r"[\d.]+ [kM]?B", second)) == 3


def test_progress_ends_a_test_with_a_short_table(
    reported: Run, output: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = new_trainer(reported.folder, StreamProgress())
    trainer.test(new_system(), datamodule=new_stream(), ckpt_path="last")
    summary, text = reported.trainer.record.summary(), output.getvalue()
    columns = [(role, metric) for role in ("teacher", "distilled") for metric in ("recall@20", "ndcg@20")]
    for block in range(3):
        values = [f"{summary[role][metric]['A'][2][block]:.4f}" for role, metric in columns]
        assert re.search(rf"^D{block} +{' +'.join(values)} *$", text, re.MULTILINE)
    for name, label in (("LA", "LA"), ("RA", "RA"), ("H", "H-mean")):
        values = [f"{summary[role][metric][name][2]:.4f}" for role, metric in columns]
        assert re.search(rf"^{label} +{' +'.join(values)} *$", text, re.MULTILINE)
    assert "test/" not in capsys.readouterr().out + text
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    for role, found in (("teacher", "teacher"), ("student", "distilled")):
        for block, value in enumerate(summary[found]["ndcg@5"]["A"][2]):
            assert logged[f"test/{role}/ndcg@5/D{block}"] == pytest.approx(value, abs=1e-6)


def test_progress_leaves_lightnings_table_to_others(
    reported: Run, output: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    new_trainer(reported.folder).test(new_system(), datamodule=new_stream(), ckpt_path="last")
    assert "test/student/recall@20/D2" in capsys.readouterr().out
    silent = new_trainer(reported.folder, StreamProgress())
    silent.test(new_system(), datamodule=new_stream(), ckpt_path="last", verbose=False)
    assert output.getvalue() == "" and "test/" not in capsys.readouterr().out


def test_progress_says_that_a_stage_does_not_validate(
    tmp_path: Path, output: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SILENCE", -1.0)
    plan = StreamPlan(base=StageSettings(evaluate_every=0), first_distillation=StageSettings(evaluate_every=2))
    run(tmp_path, StreamProgress(), blocks=1, max_epochs=2, plan=plan)
    told = [line.split(" · ")[3] for line in output.getvalue().splitlines() if re.search(r"epoch \d of 2", line)]
    assert told[0] == told[1] == "no validation in this stage (evaluate_every: 0)"
    assert not any(NOTHING in line for line in told)


def test_progress_says_that_a_stage_is_not_validated_yet(
    tmp_path: Path, output: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SILENCE", -1.0)
    run(tmp_path, StreamProgress(), blocks=1, max_epochs=2, plan=StreamPlan(base=StageSettings(evaluate_every=2)))
    first = next(line for line in output.getvalue().splitlines() if "epoch 1 of 2" in line)
    assert first.split(" · ")[3] == "not validated yet"


def test_progress_quiets_lightning_and_lets_it_speak_again(tmp_path: Path, output: Terminal) -> None:
    logger = logging.getLogger("lightning.pytorch")
    heard: list[str] = []

    class Hear(StreamCallback):
        def on_stage_end(self, trainer: Any, system: Any, stage: Any) -> None:
            heard.append(f"{logger.isEnabledFor(logging.INFO)} {logger.isEnabledFor(logging.WARNING)}")

    logger.setLevel(logging.INFO)
    filters = list(warnings.filters)
    run(tmp_path, StreamProgress(), Hear(), blocks=1)
    assert set(heard) == {"False True"}
    assert logger.level == logging.INFO
    assert list(warnings.filters) == filters


def test_progress_lets_lightning_speak_again_after_an_error(tmp_path: Path, output: Terminal) -> None:
    class Fail(StreamCallback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            raise RuntimeError("FAIL")

    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
    progress = StreamProgress()
    with pytest.raises(RuntimeError, match="FAIL"):
        run(tmp_path, progress, Fail(), blocks=1)
    assert logging.getLogger("lightning.pytorch").level == logging.INFO
    assert progress._screen is None


def test_progress_loud_leaves_lightning_alone(tmp_path: Path, output: Terminal) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
    levels: list[int] = []

    class Hear(StreamCallback):
        def on_stage_end(self, trainer: Any, system: Any, stage: Any) -> None:
            levels.append(logging.getLogger("lightning.pytorch").level)

    run(tmp_path, StreamProgress(quiet=False), Hear(), blocks=1)
    assert set(levels) == {logging.INFO}


def test_progress_silent_on_other_processes(tmp_path: Path, output: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    from ccd_lightning.trainer import StreamTrainer

    levels: list[int] = []

    class Hear(StreamCallback):
        def on_stage_end(self, trainer: Any, system: Any, stage: Any) -> None:
            levels.append(logging.getLogger("lightning.pytorch").level)

    monkeypatch.setattr(StreamTrainer, "is_global_zero", property(lambda self: False))
    run(tmp_path, StreamProgress(), Hear(), blocks=1)
    assert output.getvalue() == ""
    assert set(levels) == {logging.WARNING}


def test_progress_tells_a_log_of_epochs_after_a_long_silence(
    tmp_path: Path, output: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SILENCE", -1.0)
    run(tmp_path, StreamProgress(), blocks=1, max_epochs=3)
    lines = [line for line in output.getvalue().splitlines() if re.search(r"epoch \d of 3", line)]
    assert [line.split(" · ")[1:3] for line in lines[:3]] == [
        ["teacher 0 base", f"epoch {epoch} of 3"] for epoch in (1, 2, 3)
    ]
    facts = (
        r"valid recall@20 0\.\d{4} \(teacher 0 on D0\) · loss own [\d.]+k? · stage 2 of 3 · .* elapsed · about .* left"
    )
    assert re.search(rf"teacher 1 base · epoch 2 of 3 · {facts}$", lines[4])


@pytest.mark.parametrize("stages", [0, 1])
def test_progress_tells_how_to_go_on_after_an_interruption(
    tmp_path: Path, output: Terminal, capsys: pytest.CaptureFixture[str], stages: int
) -> None:
    class Interrupt(StreamCallback):
        def on_stage_start(self, trainer: Any, system: Any, stage: Any) -> None:
            if trainer.stages_done == stages:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, StreamCheckpoint(), StreamProgress(), Interrupt())
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("interrupted")]
    went_on = f"interrupted: what was saved is whole in {tmp_path}; go on with `--ckpt_path last`."
    assert told == [went_on if stages else "interrupted: nothing was saved yet."]


def test_progress_holds_back_warnings_about_sums_over_processes(tmp_path: Path, output: Terminal) -> None:
    class Warn(StreamCallback):
        def on_stage_end(self, trainer: Any, system: Any, stage: Any) -> None:
            warnings.warn(
                "It is recommended to use `self.log('valid/recall@20', ..., sync_dist=True)` when logging on epoch level in"
                " distributed setting to accumulate the metric across devices.",
                stacklevel=1,
            )
            warnings.warn("SOMETHING ELSE", stacklevel=1)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(tmp_path, StreamProgress(), Warn(), blocks=1)
    told = {str(warning.message) for warning in caught}
    assert "SOMETHING ELSE" in told
    assert not any("sync_dist" in message for message in told)
