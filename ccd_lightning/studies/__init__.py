"""Studies: methods times seeds, each a run of its own, and what can be said about them together."""

from ccd_lightning.studies.report import write_report
from ccd_lightning.studies.runner import carry_out
from ccd_lightning.studies.study import Method, Run, Study

__all__ = ["Method", "Run", "Study", "carry_out", "write_report"]
