"""A trained recommender as files that need no ccd-lightning to be used."""

from ccd_lightning.export.folders import replace_folder
from ccd_lightning.export.programs import scorer_of
from ccd_lightning.export.writer import Role, export_model, export_system

__all__ = ["Role", "export_model", "export_system", "replace_folder", "scorer_of"]
