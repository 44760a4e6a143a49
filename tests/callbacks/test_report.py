"""The files of a run say the same, and what they say follows from the performance matrices."""

from __future__ import annotations

import csv
import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from ccd_lightning.callbacks import DistillationCallback, StreamCheckpoint, StreamReport
from ccd_lightning.data import IdMap
from ccd_lightning.hooks import StreamCallback

from .conftest import Run, new_stream, new_system, new_trainer

ROLES = ("teacher", "student", "distilled")


def read_metrics(run: Run) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    content: dict[str, Any] = json.loads((run.folder / "metrics.json").read_text(), parse_constant=refuse)
    return content


class Page(HTMLParser):
    """Collects text, references and unclosed elements of a page."""

    VOID = ("meta", "br", "use", "path", "rect", "circle")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.words: list[str] = []
        self.references: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.references += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += [data.strip()] if data.strip() else []


@pytest.fixture(scope="module")
def page(reported: Run) -> Page:
    return Page((reported.folder / "report.html").read_text())


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("metric", ["recall@20", "ndcg@5"])
def test_report_metrics_json_averages_follow_from_the_matrix(reported: Run, role: str, metric: str) -> None:
    found = read_metrics(reported)[role][metric]
    matrix = found["A"]
    assert [len(row) for row in matrix] == [1, 2, 3]
    for k in range(3):
        learned = sum(matrix[j][j] for j in range(k + 1)) / (k + 1)
        retained = sum(matrix[k]) / (k + 1)
        lost = [max(matrix[m][j] for m in range(j, k)) - matrix[k][j] for j in range(k)]
        assert found["LA"][k] == pytest.approx(learned, abs=1e-12)
        assert found["RA"][k] == pytest.approx(retained, abs=1e-12)
        assert found["H"][k] == pytest.approx(2 / (1 / learned + 1 / retained), abs=1e-12)
        assert found["forgetting"][k] == pytest.approx(sum(lost) / max(k, 1), abs=1e-12)


def test_report_metrics_json_has_the_agreed_keys(reported: Run) -> None:
    content = read_metrics(reported)
    assert {*ROLES, "new_users", "new_items", "seconds", "peak_bytes"} <= set(content)
    assert set(content["new_users"]) == set(content["new_items"]) == set(ROLES)
    assert all(len(spent) <= 3 for spent in content["seconds"].values())
    assert content["peak_bytes"] > 2**20
    assert content["student"]["recall@20"]["forward_transfer"][-1] is None


def test_report_metrics_json_agrees_with_a_fresh_test_of_the_student(reported: Run, tmp_path: Path) -> None:
    system, stream = new_system(), new_stream()
    new_trainer(tmp_path).test(system, datamodule=stream, ckpt_path=str(reported.folder), verbose=False)
    tested = system.test_results()["student"]
    row = read_metrics(reported)["distilled"]["recall@20"]["A"][-1]
    assert [tested[block]["all"]["recall@20"] for block in range(3)] == pytest.approx(row, abs=1e-12)


def test_report_overlap_is_the_mean_over_users_of_shared_top_items(reported: Run) -> None:
    """With sets of Python over whole score rows; the last block's models are those that the run ended with."""
    system, block = reported.system, reported.stream.blocks[-1]
    everybody = torch.arange(block.num_users)
    with torch.no_grad():
        teacher = system.teacher_system().scores(everybody).tolist()
        student = system.student.backbone.scores(everybody).tolist()
    seen: dict[int, set[int]] = {}
    for part in (block.train, block.valid):
        for user, item in zip(part.users.tolist(), part.items.tolist(), strict=True):
            seen.setdefault(user, set()).add(item)
    least, most = [], []
    for user in everybody.tolist():
        left = [item for item in range(block.num_items) if item not in seen.get(user, ())]
        students = set(sorted(left, key=lambda item: -student[user][item])[:20])
        # Fused ranks are often equal, and any of the items that share the last place may have it.
        last = sorted((teacher[user][item] for item in left), reverse=True)[19]
        above = {item for item in left if teacher[user][item] > last}
        tied = {item for item in left if teacher[user][item] == last}
        free = 20 - len(above)
        least.append((len(above & students) + max(0, free - len(tied - students))) / 20)
        most.append((len(above & students) + min(free, len(tied & students))) / 20)
    found = read_metrics(reported)["overlap"]
    assert set(found) == {"top@20"} and len(found["top@20"]) == 3
    assert sum(least) - 1e-9 <= found["top@20"][-1] * len(least) <= sum(most) + 1e-9
    assert sum(most) - sum(least) < 0.01 * len(least)


def test_report_metrics_csv_holds_the_numbers_of_metrics_json(reported: Run) -> None:
    content = read_metrics(reported)
    with (reported.folder / "metrics.csv").open(newline="") as file:
        rows = {
            (row["role"], row["group"], row["metric"], row["quantity"], row["after_block"], row["block"]): row["value"]
            for row in csv.DictReader(file)
        }
    for role in ROLES:
        for group, found in (("all", content[role]), ("new_users", content["new_users"][role])):
            for metric, curves in found.items():
                for k, row in enumerate(curves["A"]):
                    for j, value in enumerate(row):
                        assert float(rows[role, group, metric, "A", str(k), str(j)]) == value
                    assert float(rows[role, group, metric, "H", str(k), ""]) == curves["H"][k]
    assert rows["teacher", "all", "recall@20", "forward_transfer", "2", ""] == ""
    assert float(rows["distilled", "all", "top@20", "overlap", "1", ""]) == content["overlap"]["top@20"][1]
    assert int(rows["teacher", "all", "users", "count", "2", "1"]) == content["users"]["teacher"][2][1]["users"]


def test_report_manifest_describes_the_blocks(reported: Run) -> None:
    manifest = json.loads((reported.folder / "stream.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["seed"] == 0
    assert manifest["packages"]["torch"] == torch.__version__
    for entry, block in zip(manifest["blocks"], reported.stream.blocks, strict=True):
        assert entry["fingerprint"] == block.fingerprint
        assert (entry["users"], entry["items"]) == (block.num_users, block.num_items)
        assert (entry["train"], entry["valid"], entry["test"]) == (block.train.size, block.valid.size, block.test.size)
        # BPR-MF has one embedding row for each entity and nothing else.
        entities = block.num_users + block.num_items
        assert entry["models"]["student"]["parameters"] == 4 * entities
        assert entry["models"]["teacher"]["parameters"] == 2 * 8 * entities
        assert entry["models"]["teacher"]["bytes"] == 4 * 2 * 8 * entities
        assert 0 < entry["models"]["student"]["latency_ms"] < 1e4
    assert manifest["blocks"][1]["new_users"] == manifest["blocks"][1]["users"] - manifest["blocks"][0]["users"]


def test_report_manifest_lists_the_stages_with_their_seconds(reported: Run) -> None:
    manifest = json.loads((reported.folder / "stream.json").read_text())
    stages = [stage for block in manifest["blocks"] for stage in block["stages"]]
    plan = reported.trainer.plan
    assert [stage["name"] for stage in stages] == [stage.name for k in range(3) for stage in plan.stages(k, 2)]
    assert all(stage["epochs"] == 1 for stage in stages)
    seconds = read_metrics(reported)["seconds"]
    assert math.fsum(stage["seconds"] for stage in stages) == pytest.approx(sum(map(sum, seconds.values())))


def test_report_id_maps_hold_the_known_entities(reported: Run) -> None:
    users, items = (IdMap.load(reported.folder / f"{name}.parquet") for name in ("users", "items"))
    last = reported.stream.blocks[-1]
    assert (len(users), len(items)) == (last.num_users, last.num_items)
    assert users.raw.to_list() == reported.stream.stream.users.raw.to_list()
    assert items.raw.to_list() == reported.stream.stream.items.raw.to_list()


def test_report_page_is_well_formed_and_fetches_nothing(page: Page) -> None:
    assert page.open == []
    assert {"link", "script", "img", "iframe"}.isdisjoint(page.names)
    assert page.names.count("svg") == 12
    assert all(reference.startswith(("#", "data:")) for reference in page.references)


def test_report_page_shows_the_numbers_of_metrics_json(page: Page, reported: Run) -> None:
    content = read_metrics(reported)
    for role in ROLES:
        found = content[role]["recall@20"]
        shown = [*(value for row in found["A"] for value in row), *found["LA"], *found["RA"], *found["H"]]
        assert {f"{value:.4f}" for value in shown} <= set(page.words)
    for spent in content["seconds"].values():
        assert {f"{value:.1f}" for value in spent if value >= 0.05} <= set(page.words)


def test_report_page_escapes_the_configuration(page: Page) -> None:
    assert any("<script>alert('x')</script>" in word for word in page.words)
    assert "script" not in page.names


def test_report_image_is_a_png(reported: Run) -> None:
    image = (reported.folder / "report.png").read_bytes()
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(image[16:20], "big") > 1000


def test_report_leaves_no_drafts(reported: Run) -> None:
    assert not [path for path in reported.folder.rglob("*") if path.name.endswith(".tmp")]


def test_report_logs_the_averages_of_every_role(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="log")
    trainer = new_trainer(tmp_path, DistillationCallback(), StreamReport(figures=False), logger=logger)
    trainer.fit(new_system(), datamodule=new_stream(blocks=1))
    with (tmp_path / "log" / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["stream/student/H"]]
    summary = trainer.record.summary()
    assert len(rows) == 1
    assert int(rows[0]["step"]) == trainer.global_step
    for role in ROLES:
        for name in ("LA", "RA", "H"):
            assert float(rows[0][f"stream/{role}/{name}"]) == pytest.approx(summary[role]["recall@20"][name][0])
    assert not (tmp_path / "report.html").exists()


def test_report_of_a_cut_run_is_whole_and_goes_on(tmp_path: Path) -> None:
    class Cut(StreamCallback):
        def on_stage_end(self, trainer: Any, system: Any, stage: Any) -> None:
            if stage.name == "block1-student_update":
                raise RuntimeError("CUT")

    parts = (DistillationCallback(), StreamCheckpoint(), StreamReport(figures=False))
    with pytest.raises(RuntimeError, match="CUT"):
        new_trainer(tmp_path, *parts, Cut()).fit(new_system(), datamodule=new_stream(blocks=2))
    manifest = json.loads((tmp_path / "stream.json").read_text())
    assert manifest["status"] == "running"
    assert [block["finished"] for block in manifest["blocks"]] == [True, False]
    assert manifest["stages_done"] == 4

    trainer = new_trainer(tmp_path, DistillationCallback(), StreamCheckpoint(), StreamReport(figures=False))
    trainer.fit(new_system(), datamodule=new_stream(blocks=2), ckpt_path="last")
    manifest = json.loads((tmp_path / "stream.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["stages_done"] == 7
    assert all(set(block["models"]) == {"teacher", "student"} for block in manifest["blocks"])
    assert json.loads((tmp_path / "metrics.json").read_text())["student"]["recall@20"]["A"][1]


def test_report_refuses_a_metric_that_is_not_measured(tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path, StreamReport(metric="recall@7"))
    with pytest.raises(ValueError, match=r"`metric` is 'recall@7', but the run measures recall@5"):
        trainer.fit(new_system(), datamodule=new_stream(blocks=1))


def test_report_leaves_the_models_in_their_mode(reported: Run) -> None:
    modes = [model.backbone.training for model in (reported.system.student, *reported.system.members())]
    report = StreamReport(figures=False)
    report.on_block_end(reported.trainer, reported.system, reported.stream.blocks[-1])
    assert [model.backbone.training for model in (reported.system.student, *reported.system.members())] == modes
