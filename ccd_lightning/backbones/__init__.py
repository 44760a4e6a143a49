"""Recommenders that learn, score and grow."""

from ccd_lightning.backbones.base import Backbone, EmbeddingBackbone, NewRows, evaluating
from ccd_lightning.backbones.bpr_mf import BPRMF
from ccd_lightning.backbones.counting import CountingBackbone, ItemKNN, Popularity
from ccd_lightning.backbones.lightgcn import GraphMode, LightGCN
from ccd_lightning.backbones.mult_vae import MultVAE

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
    "evaluating",
]
