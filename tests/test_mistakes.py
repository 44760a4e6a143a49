"""What the command line says about a mistake: the place, and the name that was probably meant."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from ccd_lightning.backbones import GraphMode
from ccd_lightning.checks import by_block, require_number, require_stream_options, require_whole, require_word
from ccd_lightning.cli import main
from ccd_lightning.mistakes import KindParser, explain, message_of, read_complaint
from tests.reliability.refusals import ROOT, refusal

CCD = ["--config", str(ROOT / "configs" / "ccd.yaml")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.max_epochz", "1"], "no option `trainer.max_epochz`; did you mean `trainer.max_epochs`?"),
        (["--trainer.max_epoch", "1"], "no option `trainer.max_epoch`; did you mean `trainer.max_epochs`?"),
        (["--modle.fusion_power", "1"], "did you mean `model.fusion_power`?"),
        (["--confg", "x.yaml"], "did you mean `config`?"),
        (["--ckpt", "last"], "did you mean `ckpt_path`?"),
        (["configs/yelp.yaml"], "did you mean `--config configs/yelp.yaml`?"),
        (["--data.source.drfit", "1"], "`data.source`: SimulatedStream has no option `drfit`; did you mean `drift`?"),
        (["--trainer.plan.base.learning_rat", "1"], "`trainer.plan`: .* did you mean `base.learning_rate`?"),
        (["--trainer.plan.bas.learning_rate", "1"], "did you mean `base.learning_rate`?"),
        (["--model.student.backbone", "examples.neural_cf.NeuralFC"], "did you mean `examples.neural_cf.NeuralCF`?"),
        (["--model.student.backbone.dmi", "1"], "`model.student.backbone`: BPRMF has no .*`dmi`; did you mean `dim`?"),
        (["--distillation.exclusoin", "1"], "did you mean `exclusion`?"),
        (["--distillation.student_replay.top_m", "1"], "ReplaySettings has no option `top_m`; did you mean `top_n`?"),
        (["--data.source.class_pth", "x"], "did you mean `class_path`?"),
        (["--data.source", "BlockTabel"], "no class `BlockTabel`; did you mean `ccd_lightning.data.BlockTable`?"),
        (["--data.source", "ccd_lightning.dat.BlockTable"], "did you mean `ccd_lightning.data.BlockTable`?"),
        (["--model.student.backbone", "ccd_lightning.backbones.LigthGCN"], "did you mean `.*backbones.LightGCN`?"),
        (
            ["--model.student.backbone", "ccd_lightning.backbones.Backbone"],
            "`.*Backbone` does not define `loss`, `scores`",
        ),
        (["--model.student.backbone", "nowhere.Model"], "no class `nowhere.Model`: name it as module.Class"),
        (
            ["--data.source", "os.system"],
            "os.system does not correspond to a subclass of StreamSource; expected one such",
        ),
        (["--data.source", "ccd_lightning.backbones.BPRMF"], "expected one such as `ccd_lightning.data.BlockTable`"),
        (
            ["--model.teachers.backbone.dim", "32"],
            "`model.teachers` is a list of 2: lists are set in a YAML overlay, so `--model.teachers.backbone.dim`",
        ),
        (["--model.teachers.init_args.new_rows=zero"], "`model.teachers` is a list of 2"),
        (["--trainer.max_epochs", "many"], "`trainer.max_epochs`: Expected an int. Got value: many"),
        (["--model.student.new_rows", "zero"], "`model.student.new_rows`: Expected one of 'neighbours', 'one_hop'"),
        (["--trainer.plan.base.learning_rate", "fast"], "`trainer.plan.base.learning_rate`: Expected a float"),
        (["--trainer.plan.base.learning_rate", "0"], "`learning_rate` is 0.0, but must be above 0"),
        (["--trainer.devices", "x"], "cannot be built .*should be an int > 0.*mend the value"),
        (["--trainer.accelerator", "tpu"], "cannot be built .*mend the value"),
        (["--trainer.max_steps", "9"], "`trainer.max_steps` is 9, but steps count over the whole stream"),
    ],
)
def test_mistake_on_the_command_line_names_what_was_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    run = tmp_path / "run"
    told = refusal(capsys, ["fit", *CCD, "--trainer.default_root_dir", str(run), *arguments])
    assert re.search(message.replace("?", r"\?").replace("(", r"\("), told), told
    assert not run.exists()


@pytest.mark.parametrize(
    ("content", "found"), [("trainer:\nseed_everything: 1", "None"), ("trainer: 3", "3"), ("trainer: [1]", "[1]")]
)
def test_a_trainer_without_options_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, content: str, found: str
) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    monkeypatch.chdir(tmp_path)
    told = refusal(capsys, ["fit", *CCD, "--config", "mine.yaml"])
    assert f"`trainer` is {found}, but holds the options of the Trainer" in told
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "No subcommand is given: begin with fit, test, predict or export, such as `python train.py fit"),
        (CCD, "No subcommand is given"),
        (["fit"], "Nothing says what `model.student`, `model.teachers`, `data.source` shall be: name a configuration"),
        (
            ["fit", "-config", "configs/ccd.yaml"],
            "-config begins with one dash, but options begin with two: write --config",
        ),
        (["fit", *CCD, "-trainer.max_epochs=3"], "write --trainer.max_epochs=3"),
        (["fti"], "no subcommand `fti`; did you mean `fit`?"),
        (["train"], "no subcommand `train`. Expected one of `fit`, `test`, `predict`, `export`"),
        (["test", *CCD], "`test` needs a trained stream, but no `ckpt_path` is given: add `--ckpt_path last`"),
        (["predict", *CCD], "`predict` needs a trained stream"),
    ],
)
def test_mistake_in_the_command_is_told_without_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in refusal(capsys, arguments)


@pytest.mark.skipif(torch.cuda.is_available() or torch.mps.is_available(), reason="the device is there")
def test_a_device_that_is_not_there_is_refused_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refusal(
        capsys, ["fit", *CCD, "--trainer.accelerator", "gpu", "--trainer.default_root_dir", str(tmp_path / "run")]
    )
    assert told == "No supported gpu backend found: use `--trainer.accelerator auto`."


@pytest.mark.parametrize(
    ("option", "printed"),
    [
        ("generation.sample=null", "sample: null"),
        ("init_args.generation.sample=null", "sample: null"),
        ("init_args.student_replay.decay=null", "decay: null"),
    ],
)
def test_a_setting_within_a_class_can_be_set_back_to_null(
    capsys: pytest.CaptureFixture[str], option: str, printed: str
) -> None:
    def printed_times(*more: str) -> int:
        with pytest.raises(SystemExit) as stop:
            main(["fit", "--config", str(ROOT / "configs" / "yelp_cpu.yaml"), *more, "--print_config"])
        assert stop.value.code == 0
        return capsys.readouterr().out.count(printed)

    assert printed_times(f"--distillation.{option}") == printed_times() + 1


def test_debug_shows_the_traceback_and_changes_nothing_else(tmp_path: Path) -> None:
    run = ["--trainer.default_root_dir", str(tmp_path / "run")]
    with pytest.raises(MisconfigurationException, match=r"did you mean `trainer.max_epochs`"):
        main(["--debug", "fit", *CCD, "--trainer.max_epoch", "3", *run])
    with pytest.raises(ValueError, match=r"`fusion_power` is -1.0, but must be above 0"):
        main(["fit", *CCD, "--model.fusion_power", "-1", *run, "--debug"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["fit", "export"])
def test_help_is_still_whole(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "--trainer.max_epochs" in capsys.readouterr().out


def test_inner_parsers_answer_to_the_outer_ones() -> None:
    parser = KindParser(exit_on_error=False)
    parser.add_argument("--dim", type=int)
    with pytest.raises(Exception, match="unrecognized arguments: --dmi") as error:
        parser.parse_args(["--dmi", "3"])
    assert not isinstance(error.value, MisconfigurationException)


def test_complaint_is_the_innermost_one() -> None:
    message = """Parser key "a":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'x.A'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'x.A':
        Parser key "b.c":
          Expected a <class 'float'>. Got value: fast
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {'b': 1}"""
    assert read_complaint(message) == ("a.b.c", "x.A", "Expected a float. Got value: fast")
    assert explain(message, []).startswith("`a.b.c`: Expected a float. Got value: fast. `--help`")


@pytest.mark.parametrize("value", ["many", "2.5"])
def test_complaint_about_an_optional_number_says_what_was_found(value: str) -> None:
    parser = KindParser(exit_on_error=True)
    parser.add_argument("--sample", type=int | None)
    with pytest.raises(MisconfigurationException, match=rf"^`sample`: Expected an int\. Got value: {value}\. `--help`"):
        parser.parse_args(["--sample", value])


@pytest.mark.parametrize("message", ["", "something new\nin two lines", 'Parser key "a":', "invalid choice: 'x'"])
def test_explain_takes_words_it_does_not_know(message: str) -> None:
    told = explain(message, ["a"])
    assert "\n" not in told
    assert all(line in told for line in message.splitlines())


def test_message_of_is_one_paragraph() -> None:
    assert message_of(ValueError("two\nlines")) == "two lines"
    assert message_of(ValueError()) == "ValueError"
    assert message_of(FileNotFoundError(errno.ENOENT, "No such file", "x.csv")).startswith("x.csv: No such file. Check")
    assert message_of(OSError(errno.ENOSPC, "No space left")).startswith("The disk is full: free some space")


def test_checks_admit_what_is_in_range() -> None:
    require_number("a", 0.5, above=0, most=1)
    require_number("a", 1, least=1, most=1)
    require_whole("a", 3, 1)
    for name, value in by_block("momentum", [0.0, 1]):
        require_number(name, value, least=0, most=1)
    require_stream_options({"accumulate_grad_batches": 2, "max_steps": -1, "limit_test_batches": None})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", None, True, [1]])
def test_checks_refuse_what_is_no_number(value: object) -> None:
    with pytest.raises(ValueError, match=r"`rate` is .*, but must be a finite number at least 0: mend"):
        require_number("rate", value, least=0)
    with pytest.raises(ValueError, match=r"`count` is .*, but must be a whole number at least 1: mend"):
        require_whole("count", value, 1)


def test_checks_name_the_words_that_are_admitted() -> None:
    with pytest.raises(ValueError, match="`graph` is 'blok', but must be one of block, cumulative, fold"):
        require_word("graph", "blok", GraphMode)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate_grad_batches": 0}, "`accumulate_grad_batches` is 0, but must be at least 1"),
        ({"barebones": True}, "`trainer.barebones` is True, but stages are judged by metrics"),
        ({"limit_test_batches": 0}, "`trainer.limit_test_batches` is 0, but a stream is measured on whole test splits"),
        ({"max_steps": 100}, "`trainer.max_steps` is 100, but steps count over the whole stream"),
        ({"fast_dev_run": 2}, "`trainer.fast_dev_run` is 2, but its few steps count over the whole stream"),
        ({"max_time": "00:01:00:00"}, "`trainer.max_time` is '00:01:00:00', but time counts over the whole stream"),
    ],
)
def test_checks_refuse_trainer_options_that_break_a_stream(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_stream_options(options)
