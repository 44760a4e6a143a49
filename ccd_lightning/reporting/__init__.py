"""What a run tells people: tables, figures, a page, lines for the terminal. Pure functions of a record's summary."""

from ccd_lightning.reporting.cost import median_latency, model_cost
from ccd_lightning.reporting.files import to_json, write_atomically
from ccd_lightning.reporting.manifest import stream_manifest
from ccd_lightning.reporting.tables import AVERAGES, COLUMNS, METRIC, metric_rows, pick_metric, to_csv

__all__ = [
    "AVERAGES",
    "COLUMNS",
    "METRIC",
    "median_latency",
    "metric_rows",
    "model_cost",
    "pick_metric",
    "stream_manifest",
    "to_csv",
    "to_json",
    "write_atomically",
]
