"""Recommendations over HTTP from an export; neither torch nor the training parts are imported."""

from ccd_lightning.serving.live import LiveModel
from ccd_lightning.serving.model import Recommended, ServedModel, load_export

__all__ = ["LiveModel", "Recommended", "ServedModel", "load_export"]
