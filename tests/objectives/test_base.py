"""What every objective brings along."""

from __future__ import annotations

import torch

from ccd_lightning.objectives import Objective, Replay


class Shrinkage(Objective):
    def forward(self, backbone, batch):
        return torch.zeros(())


class Doubled(Shrinkage):
    name = "twice"


class Sharper(Replay):
    pass


def test_an_objective_is_called_by_its_class_unless_it_has_a_name():
    assert [kind.name for kind in (Shrinkage, Doubled, Sharper)] == ["shrinkage", "twice", "replay"]
