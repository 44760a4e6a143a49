"""The whole stream off the CPU, without a GPU: nothing meets what lies on another device, and the results are those of the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import backend_registration

from ccd_lightning.checkpoint import checkpoints_in, read_checkpoint
from ccd_lightning.cli import main

from .helpers import CONFIGS, cut, short_real_fit, short_simulated_fit

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this release of torch takes no device that is written in Python",
)
QUIET = "--report.figures=false"


def on_the_device(*arguments: str) -> None:
    """The command line in a process of its own, since a device is registered once and for all."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.other_device", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def check_same(run: Path, expected: Path) -> None:
    """Metrics up to a tie, parameters up to rounding: sums are taken in another order there."""
    found, wanted = (json.loads((folder / "metrics.json").read_text()) for folder in (run, expected))
    for role in ("teacher", "student", "distilled"):
        assert found[role]["recall@20"]["H"] == pytest.approx(wanted[role]["recall@20"]["H"], abs=2e-3)
    states = [read_checkpoint(checkpoints_in(folder)[-1])["system"] for folder in (run, expected)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[1].items():
        assert states[0][name].device.type == "cpu"
        largest = float(value.abs().max()) if value.is_floating_point() and value.numel() else 0.0
        torch.testing.assert_close(states[0][name], value, rtol=1e-3, atol=1e-3 * largest)


PROBE = """
here, there = torch.arange(3), torch.arange(3).to(DEVICE)
assert there.device == DEVICE and torch.tensor(1.5, device=DEVICE).device == DEVICE
assert (there + 1).cpu().tolist() == [1, 2, 3] and there[here > 0].tolist() == [1, 2]
assert there.mul(torch.tensor(2)).tolist() == [0, 2, 4] and there.add_(1) is there and there.sum().item() == 6
for mistake in (
    lambda: here + there,
    lambda: here[there - 1],
    lambda: here.index_select(0, there),
    lambda: torch.rand(2, device=DEVICE, generator=torch.Generator()),
    there.numpy,
):
    try:
        mistake()
    except (RuntimeError, TypeError):
        continue
    raise AssertionError("not refused")
table = torch.nn.Parameter(torch.tensor([[1.0], [2.0]]).to(DEVICE))
table.index_select(0, torch.tensor([1, 1]).to(DEVICE)).sum().backward()
assert table.grad.device == DEVICE and table.grad.tolist() == [[0.0], [2.0]]
"""


def test_device_refuses_what_a_gpu_refuses() -> None:
    on_the_device("-c", PROBE)


def test_simulated_stream_learns_the_same_off_the_cpu(tmp_path: Path) -> None:
    settings = [QUIET, "--distillation.init_args.generation.sample=20"]
    main([*short_simulated_fit("proxy_replay", tmp_path / "cpu"), *settings])
    on_the_device(*short_simulated_fit("proxy_replay", tmp_path / "device"), *settings)
    check_same(tmp_path / "device", tmp_path / "cpu")


def test_stream_moves_from_the_device_to_the_cpu_and_back(tmp_path: Path) -> None:
    def blocks(number: int, *more: str) -> list[str]:
        return [*short_simulated_fit("proxy_replay", tmp_path / "moved"), QUIET, f"--data.max_blocks={number}", *more]

    on_the_device(*blocks(1))
    main(blocks(2, "--ckpt_path=last"))
    on_the_device(*blocks(3, "--ckpt_path=last"))
    main([*short_simulated_fit("proxy_replay", tmp_path / "cpu"), QUIET])
    check_same(tmp_path / "moved", tmp_path / "cpu")


@pytest.mark.parametrize(
    ("config", "overlays"),
    [
        ("paper/yelp", []),
        ("paper/gowalla", []),
        ("yelp_cpu", ["methods/fine_tuning", "methods/experience_replay"]),
        ("yelp_cpu", ["graphs/teachers_fold", "ablations/propagated"]),
        ("yelp_cpu", ["methods/fine_tuning", "methods/item_knn"]),
    ],
)
def test_real_streams_learn_the_same_off_the_cpu(
    tmp_path: Path, shared_data: Path, config: str, overlays: list[str]
) -> None:
    """All backbones, LWC-KD with personal weights, Mult-VAE's knowledge and folded graphs take part."""
    name = "gowalla" if "gowalla" in config else "yelp"
    table = cut(shared_data / f"{name}_blocks.parquet", tmp_path, users=160, items=120, blocks=2)
    files = [part for overlay in overlays for part in ("--config", str(CONFIGS / f"{overlay}.yaml"))]

    def fit(folder: Path) -> list[str]:
        first, *rest = short_real_fit(config, table, folder)
        return [first, *rest[:2], *files, *rest[2:], QUIET]

    main(fit(tmp_path / "cpu"))
    on_the_device(*fit(tmp_path / "device"))
    check_same(tmp_path / "device", tmp_path / "cpu")
