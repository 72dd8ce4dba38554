"""The Prometheus metrics. No prompt, key or request id is ever a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from chairlift.engine.client import EngineClient
from chairlift.engine.messages import Activity, Timings
from chairlift.errors import RequestCancelled, RequestError

_REQUEST_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
_TICK_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_ROW_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


class Metrics:
    """All metrics of one server, in a registry of their own."""

    def __init__(self, client: EngineClient) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "chairlift_requests", "Requests that ended", ["outcome"], registry=registry
        )
        for outcome in ("finished", "failed", "cancelled"):
            self.requests.labels(outcome=outcome)
        self.images = Counter("chairlift_images", "Pictures made", registry=registry)
        self.rejected = Counter(
            "chairlift_rejected", "Requests that were refused", ["reason"], registry=registry
        )
        self.request_seconds = Histogram(
            "chairlift_request_seconds",
            "Time of a request from its acceptance to its pictures",
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "chairlift_queue_seconds",
            "Time that a request waited for a slot",
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self.tick_seconds = Histogram(
            "chairlift_tick_seconds", "Time of a tick", buckets=_TICK_BUCKETS, registry=registry
        )
        self.batch_rows = Histogram(
            "chairlift_batch_rows",
            "Rows in a tick's forward",
            buckets=_ROW_BUCKETS,
            registry=registry,
        )
        gauges = {
            "chairlift_requests_running": (
                "Rows that have a slot",
                lambda: client.activity.running,
            ),
            "chairlift_requests_waiting": (
                "Rows that wait for a slot",
                lambda: client.activity.waiting,
            ),
            "chairlift_backlog_seconds": (
                "Predicted seconds of work accepted and not yet done",
                lambda: client.activity.backlog_seconds,
            ),
        }
        for name, (text, read) in gauges.items():
            Gauge(name, text, registry=registry).set_function(read)
        restarts = Counter(
            "chairlift_worker_restarts", "Engine processes that were replaced", registry=registry
        )
        client.on_restart = restarts.inc
        client.listen(self._observe_activity)

    def observe_finished(self, timings: Timings, images: int) -> None:
        """Count a request that has pictures."""
        self.requests.labels(outcome="finished").inc()
        self.images.inc(images)
        self.request_seconds.observe(timings.total_s)
        self.queue_seconds.observe(timings.queue_s)

    def observe_failed(self, error: RequestError) -> None:
        """Count a request that was accepted and has ended without pictures."""
        outcome = "cancelled" if isinstance(error, RequestCancelled) else "failed"
        self.requests.labels(outcome=outcome).inc()

    def observe_refused(self, error: RequestError) -> None:
        """Count a request that was not accepted, by the reason; other errors are passed over."""
        if 400 <= error.status < RequestCancelled.status:
            self.rejected.labels(reason=error.code).inc()

    def _observe_activity(self, activity: Activity) -> None:
        for tick in activity.ticks:
            self.tick_seconds.observe(tick.seconds)
            self.batch_rows.observe(len(tick.riders))
