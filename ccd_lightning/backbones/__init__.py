"""Recommenders that learn, score and grow."""

from ccd_lightning.backbones.base import Backbone, EmbeddingBackbone, NewRows, evaluating
from ccd_lightning.backbones.bpr_mf import BPRMF
from ccd_lightning.backbones.lightgcn import GraphMode, LightGCN
from ccd_lightning.backbones.mult_vae import MultVAE
from ccd_lightning.backbones.sharding import deal_out_rows, gather_rows_back

__all__ = [
    "BPRMF",
    "Backbone",
    "EmbeddingBackbone",
    "GraphMode",
    "LightGCN",
    "MultVAE",
    "NewRows",
    "deal_out_rows",
    "evaluating",
    "gather_rows_back",
]
