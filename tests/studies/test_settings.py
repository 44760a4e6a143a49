"""What files say together, against what the command line makes of them; and what D_0 depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ccd_lightning.checkpoint import checkpoints_in, read_checkpoint
from ccd_lightning.cli import main
from ccd_lightning.studies.settings import LATER, family_of, merged_settings

from ..helpers import CONFIGS
from .conftest import CCD, TINY, overlay

GCN = "ccd_lightning.backbones.LightGCN"
MF = "ccd_lightning.backbones.BPRMF"
UPDATE = {"max_epochs": 2, "learning_rate": 0.5, "batch_size": 77, "past": 1.0}


def system(graph: str, edge_decay: float, deployed_decay: float | None, new_rows: str, topk: int) -> dict[str, Any]:
    """A student and two teachers."""
    rows = {"new_rows": new_rows, "new_rows_topk": topk}

    def member(kind: str, dim: int) -> dict[str, Any]:
        name = f"ccd_lightning.modules.{kind}"
        graphs = {"graph": graph, "edge_decay": edge_decay, "deployed_decay": deployed_decay}
        backbone = {"class_path": GCN, "init_args": {"dim": dim, **graphs}}
        return {"class_path": name, "init_args": {**rows, "backbone": backbone}}

    return {"student": member("Student", 4), "teachers": [member("Teacher", 8), member("Teacher", 8)]}


FIRST = {"model": system("fold", 1.0, None, "neighbours", 20)}
DEPLOYED_ELSEWHERE = {"model": system("block", 1.0, 0.5, "neighbours", 20)}
LAST = {
    "model": system("cumulative", 0.5, None, "random", 7),
    "trainer": {
        "plan": {
            "student_update": UPDATE,
            "teacher_update": UPDATE,
            "distillation": UPDATE,
            "cycle": ["teacher_update", "distillation"],
            "teacher_every": 3,
        }
    },
    "distillation": {
        "exclusion": 7,
        "observed": "cumulative",
        "generation": {"warm_start": False},
        "graph": {"weight": 3.0, "output_weight": 0.0},
        "student_replay": {"stability": 0, "plasticity": 1, "eps": 0.1},
        "teacher_replay": {"student": 1, "decay": None},
        "stability_momentum": 0.5,
        "plasticity_momentum": 0.4,
    },
}
"""Another value for everything that is said to change nothing before D_1."""


def reaches(settings: Any, names: list[str]) -> bool:
    if not names:
        return True
    if names[0] == "*":
        return all(reaches(value, names[1:]) for value in settings)
    return names[0] in settings and reaches(settings[names[0]], names[1:])


def test_what_is_said_to_come_later_changes_nothing_on_the_first_block(tmp_path: Path) -> None:
    states = []
    for name, content in (("first", FIRST), ("last", LAST), ("elsewhere", DEPLOYED_ELSEWHERE)):
        files = [CCD, overlay(tmp_path, name, content)]
        configs = [part for file in files for part in ("--config", file)]
        folder = str(tmp_path / name / "run")
        main(["fit", *configs, *TINY, "--data.max_blocks=1", "--trainer.default_root_dir", folder])
        states.append(read_checkpoint(checkpoints_in(Path(folder))[-1]))
    merged = merged_settings([CCD, overlay(tmp_path, "last", LAST)])
    assert all(reaches(merged, key.split(".")) for key in LATER), "LAST leaves a setting untried"
    for other in states[1:]:
        for name, tensor in states[0]["system"].items():
            assert torch.equal(tensor, other["system"][name]), name
        assert states[0]["record"]["matrices"] == other["record"]["matrices"]
    contents = (FIRST, LAST, DEPLOYED_ELSEWHERE)
    assert len({family_of(merged_settings([CCD, overlay(tmp_path, "any", content)])) for content in contents}) == 1


@pytest.mark.parametrize(
    "content",
    [
        {"seed_everything": 1},
        {"trainer": {"plan": {"base": {"max_epochs": 3}}}},
        {"trainer": {"plan": {"first_distillation": {"max_epochs": 3}}}},
        {"distillation": {"generation": {"user_weight": 0.0}}},
        {"model": {"student": {"init_args": {"backbone": {"init_args": {"dim": 9}}}}}},
        {"data": {"source": {"init_args": {"drift": 0.0}}}},
    ],
)
def test_what_the_first_block_depends_on_makes_another_family(tmp_path: Path, content: dict[str, Any]) -> None:
    changed = merged_settings([CCD, overlay(tmp_path, "changed", content)])
    assert family_of(changed) != family_of(merged_settings([CCD]))


def flat(content: Any) -> Any:
    """Without ``init_args``."""
    if isinstance(content, dict):
        inner = content.get("init_args") or {}
        return {key: flat(value) for key, value in {**content, **inner}.items() if key != "init_args"}
    return [flat(value) for value in content] if isinstance(content, list) else content


def agrees(said: Any, parsed: Any, place: str = "") -> None:
    """Everything that files say is what the command line takes; it adds the defaults."""
    if isinstance(said, dict):
        for key, value in said.items():
            agrees(value, parsed[key], f"{place}.{key}")
    elif isinstance(said, list):
        assert len(said) == len(parsed), place
        for index, value in enumerate(said):
            agrees(value, parsed[index], f"{place}.{index}")
    else:
        assert said == parsed, place


def parsed_by_the_command_line(files: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    with pytest.raises(SystemExit):
        main(["fit", *(part for file in files for part in ("--config", file)), "--print_config"])
    return flat(yaml.safe_load(capsys.readouterr().out))


@pytest.mark.parametrize("above", [LAST, {"distillation": {"exclusion": 3}}, {"model": {"student": {
    "class_path": "ccd_lightning.modules.Student", "init_args": {"backbone": {"class_path": GCN}}}}}])  # fmt: skip
def test_files_merge_as_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], above: dict[str, Any]
) -> None:
    files = [CCD, str(CONFIGS / "fine_tuning.yaml"), overlay(tmp_path, "above", above)]
    agrees(merged_settings(files), parsed_by_the_command_line(files, capsys))


@pytest.mark.parametrize("number", [2, 1])
@pytest.mark.parametrize("kind", ["BPRMF", "LightGCN"])
def test_classes_in_a_list_merge_as_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int, kind: str
) -> None:
    def teachers(count: int, name: str, backbone: dict[str, Any], **settings: Any) -> dict[str, Any]:
        model = {"class_path": f"ccd_lightning.backbones.{name}", "init_args": backbone}
        teacher = {"class_path": "ccd_lightning.modules.Teacher", "init_args": {"backbone": model, **settings}}
        return {"model": {"teachers": [teacher] * count}}

    below = teachers(2, "LightGCN", {"dim": 5, "num_layers": 3}, new_rows="random", clusters=3)
    files = [CCD, overlay(tmp_path, "below", below), overlay(tmp_path, "above", teachers(number, kind, {}, clusters=4))]
    parsed = parsed_by_the_command_line(files, capsys)["model"]["teachers"]
    found = merged_settings(files)["model"]["teachers"]
    assert len(found) == len(parsed) == number
    for mine, its in zip(found, parsed, strict=True):
        assert mine["clusters"] == its["clusters"] == 4
        assert mine.get("new_rows", "neighbours") == its["new_rows"] == ("random" if number == 2 else "neighbours")
        assert mine["backbone"].get("dim", 64) == its["backbone"]["dim"] == (5 if number == 2 else 64)
        assert mine["backbone"]["class_path"] == its["backbone"]["class_path"]


@pytest.mark.parametrize(
    ("name", "updates"),
    [
        ("fine_tuning", ["student_update"]),
        ("methods/fine_tuning", ["student_update", "teacher_update"]),
        ("methods/one_time_distillation", ["student_update"]),
        ("methods/distillation_only", ["teacher_update"]),
    ],
)
def test_who_is_only_fine_tuned_rehearses_nothing(name: str, updates: list[str]) -> None:
    """Over a configuration that rehearses, too."""
    below = merged_settings([str(CONFIGS / "gowalla.yaml")])["trainer"]["plan"]
    plan = merged_settings([str(CONFIGS / "gowalla.yaml"), str(CONFIGS / f"{name}.yaml")])["trainer"]["plan"]
    assert all(below[update]["past"] == 1 and plan[update]["past"] == 0 for update in updates)


@pytest.mark.parametrize("name", ["yelp", "gowalla"])
def test_the_papers_models_take_one_negative_for_each_positive(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan = parsed_by_the_command_line([str(CONFIGS / "paper" / f"{name}.yaml")], capsys)["trainer"]["plan"]
    stages = {key: value["negatives"] for key, value in plan.items() if isinstance(value, dict)}
    assert stages == dict.fromkeys(stages, 1)
    assert {"base", "student_update", "teacher_update", "distillation"} <= set(stages)


def test_another_class_keeps_what_it_takes_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def student(name: str, backbone: dict[str, Any]) -> dict[str, Any]:
        model = {"class_path": f"ccd_lightning.backbones.{name}", "init_args": backbone}
        return {"model": {"student": {"class_path": "ccd_lightning.modules.Student", "init_args": {"backbone": model}}}}

    below = overlay(tmp_path, "below", student("LightGCN", {"dim": 5, "num_layers": 3}))
    files = [CCD, below, overlay(tmp_path, "above", student("BPRMF", {}))]
    parsed = parsed_by_the_command_line(files, capsys)["model"]["student"]["backbone"]
    merged = merged_settings(files)["model"]["student"]["backbone"]
    assert parsed == {"class_path": "ccd_lightning.backbones.BPRMF", "dim": 5}
    assert merged == {**parsed, "num_layers": 3}


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), ("a: [", "cannot be read as YAML"), ("- a", "holds no mapping")]
)
def test_files_that_are_no_configurations_are_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "broken.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=rf"broken\.yaml.*{message}"):
        merged_settings([str(path)])
