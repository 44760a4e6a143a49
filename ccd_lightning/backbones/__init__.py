"""Recommenders that learn, score and grow."""

from ccd_lightning.backbones.base import Backbone, EmbeddingBackbone, NewRows, evaluating
from ccd_lightning.backbones.bpr_mf import BPRMF
from ccd_lightning.backbones.counting import CountingBackbone, ItemKNN, Popularity
from ccd_lightning.backbones.lightgcn import GraphMode, LightGCN
from ccd_lightning.backbones.mult_vae import MultVAE
from ccd_lightning.backbones.sharding import deal_out_rows, gather_rows_back

__all__ = [
    "BPRMF",
    "Backbone",
    "CountingBackbone",
    "EmbeddingBackbone",
    "GraphMode",
    "ItemKNN",
    "LightGCN",
    "MultVAE",
    "NewRows",
    "Popularity",
    "deal_out_rows",
    "evaluating",
    "gather_rows_back",
]
