"""Ranking metrics and performance over the stream."""

from ccd_lightning.metrics.continual import PerformanceMatrix
from ccd_lightning.metrics.ranking import RankingMetrics

__all__ = ["PerformanceMatrix", "RankingMetrics"]
