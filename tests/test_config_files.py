"""Mistakes in configuration files, and in how they are laid over each other, are told by file and key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

from ccd_lightning.cli import main
from ccd_lightning.config_files import check_config_files, check_empty_sections
from tests.reliability.refusals import ROOT, refusal

CCD = ["--config", str(ROOT / "configs" / "ccd.yaml")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("trainr: {max_epochs: 3}", "did you mean `trainer.max_epochs`?"),
        ("trainer: {max_epochz: 3}", "did you mean `trainer.max_epochs`?"),
        ("trainer: {plan: {base: {max_epoch: 3}}}", "did you mean `base.max_epochs`? `base` accepts `"),
        ("data: {source: {class_path: ccd_lightning.data.BlockTable, init_args: {pth: x}}}", "did you mean `path`?"),
        ("data: {source: {class_pth: BlockTable}}", "did you mean `class_path`?"),
        ("model: {teachers: [{class_path: Teacher, init_args: {clusterz: 3}}]}", "did you mean `clusters`?"),
        (
            "distillation: {class_path: ccd_lightning.callbacks.DistilationCallback}",
            "`.*callbacks.DistillationCallback`?",
        ),
        ("model: {teachers: 3}", "`model.teachers`: Expected a list. Got value: 3"),
    ],
)
def test_mistake_in_a_file_names_what_was_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    run = ["--trainer.default_root_dir", str(tmp_path / "run")]
    told = refusal(capsys, ["fit", *CCD, "--config", str(tmp_path / "mine.yaml"), *run])
    assert re.search(message.replace("?", r"\?"), told), told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "nowhere.yaml does not exist; did you mean `.*near.yaml`\\?"),
        ("folder", "is a folder; did you mean"),
        ("", "holds nothing, but keys such as `trainer:`"),
        ("- 1\n- 2\n", "holds no mapping of keys to values"),
        ("just a word", "holds no mapping of keys to values"),
        ("a: [1\nb: }", "cannot be read as YAML .*line 2"),
        ("trainer:\n\tmax_epochs: 3", "cannot be read as YAML .*cannot start any token"),
        (b"trainer: {default_root_dir: \xff\xe9}", "cannot be read as YAML .*utf-8"),
        ("trainer: {max_epochs: '${nowhere}'}", "Interpolation key 'nowhere' not found"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor for the tag"),
    ],
)
def test_configuration_file_is_named_when_it_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | bytes | None, message: str
) -> None:
    path = tmp_path / "nowhere.yaml"
    (tmp_path / "near.yaml").write_text("seed_everything: 1")
    if content is None:
        assert not path.exists()
    elif content == "folder":
        path.mkdir()
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    told = refusal(capsys, ["fit", "--config", str(path)])
    assert "nowhere.yaml" in told
    assert re.search(message, told), told


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("distilation: {}", "there is no `distilation`; did you mean `distillation`?"),
        (
            "trainer: {plan: {teacher_updat: {}}}",
            "there is no `trainer.plan.teacher_updat`; did you mean `teacher_update`?",
        ),
        ("model: {student: {backbones: {}}}", "there is no `model.student.backbones`; did you mean `backbone`?"),
    ],
)
def test_an_empty_section_of_a_mistyped_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], section: str, message: str
) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(section)
    assert refusal(capsys, ["fit", *CCD, "--config", str(overlay)]) == f"{overlay}: {message}"


def test_empty_sections_that_exist_say_nothing() -> None:
    config = {
        "model": {"class_path": "M", "init_args": {"parts": [1], "free": {}, "plan": None}},
        "trainer": {"plan": {}},
    }
    for section in ({"model": {"init_args": {}}}, {"model": {"free": {}}}, {"trainer": {"plan": {}}}, {"model": {}}):
        check_empty_sections({"a.yaml": section | {"seed": 1}}, config)
    check_empty_sections({"a.yaml": {"model": {"dict_kwargs": {}, "plan": {"deep": {}}}}}, config)
    with pytest.raises(MisconfigurationException, match=r"^a.yaml: there is no `model.fre`; did you mean `free`\?$"):
        check_empty_sections({"a.yaml": {"model": {"fre": {}}}}, config)


def test_config_files_are_found_in_every_spelling(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.yaml")
    for arguments in (["--config", absent], ["-c", absent], [f"--config={absent}"]):
        with pytest.raises(MisconfigurationException, match=r"absent.yaml does not exist"):
            check_config_files(["fit", *arguments])
    check_config_files(["fit", "--config", "s3://bucket/far.yaml", "--config"])


def test_options_point_into_lists_that_the_command_line_has_set(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("trainer: {callbacks: [{class_path: A}]}\nmodel: {init_args: {parts: [1, 2]}}")
    (tmp_path / "later.yaml").write_text("model: {init_args: {parts: {first: 1}}}")
    one = ["fit", "--config", str(tmp_path / "mine.yaml")]
    check_config_files([*one, "--trainer.callbacks+=B", "--trainer.callbacks.depth=3"])
    check_config_files([*one, "--trainer.callbacks", "B", "--trainer.callbacks.depth", "3"])
    check_config_files([*one, "--trainer.callbacks.help", "B", "--model.part.first=3", "--model.parts=[3]"])
    for option in ("--model.parts.first=3", "--model.init_args.parts.first"):
        with pytest.raises(MisconfigurationException, match=r"parts` is a list of 2: lists are set in a YAML overlay"):
            check_config_files([*one, option])
    check_config_files([*one, "--config", str(tmp_path / "later.yaml"), "--model.parts.first=3"])


def test_an_appended_entry_of_a_list_takes_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--trainer.callbacks+=ModelSummary", "--trainer.callbacks.max_depth=3"]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *CCD, *more, "--print_config"])
    assert stop.value.code == 0
    assert "max_depth: 3" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--seed_everything=3", "--data.source.core=3", "--model.student.init_args.dim"])
def test_options_that_a_later_configuration_sets_again_are_refused(tmp_path: Path, option: str) -> None:
    first, later = tmp_path / "first.yaml", tmp_path / "later.yaml"
    first.write_text(
        "seed_everything: 0\nmodel: {student: {init_args: {dim: 8}}}\ndata: {source: {init_args: {core: 5}}}"
    )
    later.write_text("model: {student: {init_args: {width: 8}}}")
    check_config_files(["fit", "--config", str(first), option, "3", "--config", str(later)])
    key = option[2:].partition("=")[0]
    with pytest.raises(
        MisconfigurationException, match=f"`--{key}` stands before .*first.yaml`, which sets it to [058]"
    ):
        check_config_files(["fit", option, "3", f"--config={first}"])
