"""What the server counts, in the text format of Prometheus."""

from __future__ import annotations

from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ccd_lightning.serving.live import LiveModel

_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class ServingMetrics:
    """Requests by status, latencies, unknown users, and which model is served.

    Args:
        live: what is served.
    """

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, live: LiveModel) -> None:
        self.registry = CollectorRegistry()
        self.unknown = Counter(
            "ccd_unknown_users", "Requests for users whom the model does not know.", registry=self.registry
        )
        self._requests = Counter("ccd_requests", "Recommendation requests.", ["status"], registry=self.registry)
        self._latency = Histogram(
            "ccd_latency_seconds",
            "Seconds to answer a recommendation request.",
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self.registry.register(_ModelCollector(live))

    def count(self, status: int, seconds: float) -> None:
        """Count a recommendation request.

        Args:
            status: of the response.
            seconds: that it took.
        """
        self._requests.labels(str(status)).inc()
        self._latency.observe(seconds)

    def text(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        return generate_latest(self.registry)


class Measured:
    """Times recommendation requests; a plain ASGI middleware, since FastAPI's own halves the requests per second.

    Args:
        app: what answers.
        metrics: where requests are counted.
    """

    def __init__(self, app: ASGIApp, metrics: ServingMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and count it if it asks for recommendations."""
        if scope["type"] != "http" or not scope["path"].startswith("/recommend/"):
            await self._app(scope, receive, send)
            return
        started, status = perf_counter(), 500

        async def watch(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            self._metrics.count(status, perf_counter() - started)


class _ModelCollector(Collector):
    def __init__(self, live: LiveModel) -> None:
        self._live = live

    def collect(self) -> list[GaugeMetricFamily]:
        model = self._live.model
        info = GaugeMetricFamily("ccd_model_info", "The model that is served.", labels=["version", "role", "block"])
        info.add_metric([model.version, model.manifest["role"], str(model.manifest["block"])], 1)
        since = GaugeMetricFamily("ccd_model_since_seconds", "Unix time from which it is served.", self._live.since)
        refused = self._live.refused is not None
        return [
            info,
            since,
            GaugeMetricFamily("ccd_export_refused", "1 if the newest export was refused.", int(refused)),
        ]
