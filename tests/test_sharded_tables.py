"""Tables dealt out to processes learn what whole tables learn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from ccd_lightning import functional as F
from ccd_lightning.backbones import BPRMF, LightGCN, deal_out_rows, gather_rows_back
from ccd_lightning.data import ContinualDataModule, SimulatedStream
from ccd_lightning.modules import CollaborativeDistillation, Student, Teacher
from ccd_lightning.trainer import StreamTrainer

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "sharded_tables.py"


def learned(folder: Path, processes: int) -> dict[str, Tensor]:
    """Parameters after a whole stream with growth, proxies and all stages."""
    options = ["--processes", str(processes), "--epochs", "2", "--folder", str(folder)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(EXAMPLE), *options], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "system.pt")


@pytest.mark.slow
def test_a_stream_with_sharded_tables_learns_the_weights_of_one_with_whole_tables(tmp_path):
    whole, sharded = (learned(tmp_path / str(processes), processes) for processes in (1, 2))
    assert whole.keys() == sharded.keys()
    for name, value in whole.items():
        torch.testing.assert_close(
            sharded[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.fixture
def mesh(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def grown(model: BPRMF | LightGCN) -> BPRMF | LightGCN:
    model.grow(7, 5, torch.Generator().manual_seed(0))
    return model


def test_rows_products_and_gradients_of_a_sharded_table_are_those_of_the_whole_one(mesh):
    model = grown(BPRMF(3))
    users, weights = torch.tensor([[6, 0], [6, 3]]), torch.randn(2, 2, 5)

    def value() -> Tensor:
        rows = F.gather_rows(model.user_embedding, users)
        return (F.products(rows.view(4, 3), model.item_embedding).view(2, 2, 5) * weights).sum()

    expected = value()
    gradients = torch.autograd.grad(expected, (model.user_embedding, model.item_embedding))
    deal_out_rows(model, mesh)
    assert isinstance(model.user_embedding, DTensor) and isinstance(model.item_embedding, DTensor)
    found = value()
    assert not isinstance(found, DTensor)
    torch.testing.assert_close(found, expected)
    sharded = torch.autograd.grad(found, (model.user_embedding, model.item_embedding))
    for ours, theirs in zip(sharded, gradients, strict=True):
        torch.testing.assert_close(ours.full_tensor(), theirs)


def test_dealing_out_and_gathering_back_keeps_the_rows(mesh):
    model = grown(BPRMF(3)).requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(2):
        deal_out_rows(model, mesh)
    for _ in range(2):
        gather_rows_back(model)
    for name in model.tables():
        assert torch.equal(getattr(model, name), before[name]) and not isinstance(getattr(model, name), DTensor)
        assert not getattr(model, name).requires_grad


def test_a_sum_over_the_whole_catalogue_of_a_sharded_table_is_refused(mesh):
    model, nobody = grown(BPRMF(3)), torch.empty(0, dtype=torch.long)
    deal_out_rows(model, mesh)
    with pytest.raises(ValueError, match=r"keys sharded by rows.*needs the whole table: draw a sample"):
        F.masked_logsumexp(torch.ones(1, 3), model.item_embedding, nobody, nobody)


def test_copies_of_the_shards_are_refused():
    class Mesh(dict):
        def size(self) -> int:
            return 2

    student = Student(BPRMF(3))
    student._device_mesh = Mesh(data_parallel=Mesh())
    with pytest.raises(MisconfigurationException, match=r"`data_parallel_size` 2, but the gradients.*set it to 1"):
        student.configure_model()


def test_checkpoints_of_many_files_are_refused(tmp_path):
    strategy = ModelParallelStrategy(1, 1, process_group_backend="gloo")
    trainer = StreamTrainer(accelerator="cpu", devices=1, logger=False, strategy=strategy, default_root_dir=tmp_path)
    system = CollaborativeDistillation(Student(BPRMF(3)), [Teacher(BPRMF(3))], ks=(5,))
    with pytest.raises(MisconfigurationException, match="one file: give it `save_distributed_checkpoint: false`"):
        trainer.fit(
            system, datamodule=ContinualDataModule(SimulatedStream(users=60, items=40, interactions=500, blocks=2))
        )


def test_tables_that_a_graph_model_needs_as_a_whole_stay_whole(mesh):
    model = grown(LightGCN(3))
    deal_out_rows(model, mesh)
    assert not any(isinstance(table, DTensor) for table in model.parameters())
