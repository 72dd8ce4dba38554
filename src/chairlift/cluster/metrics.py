"""A replica's metrics, in Ray's own registry, which every node exports for Prometheus.

They have the names of the single server's with ``ray_`` before them, and Serve's labels.
"""

from __future__ import annotations

from ray.serve.metrics import Counter, Gauge, Histogram

from chairlift.engine.client import EngineClient
from chairlift.engine.messages import Activity
from chairlift.engine.ride import Ride
from chairlift.server.metrics import ROW_BUCKETS, TICK_BUCKETS


class ReplicaMetrics:
    """Those of one engine, from now on.

    Args:
        client: The engine's.
    """

    def __init__(self, client: EngineClient) -> None:
        self._backlog = Gauge(
            "chairlift_backlog_seconds", "Predicted seconds of work accepted and not yet done"
        )
        self._tick_seconds = Histogram(
            "chairlift_tick_seconds", "Time of a tick", boundaries=list(TICK_BUCKETS)
        )
        self._batch_rows = Histogram(
            "chairlift_batch_rows", "Rows in a tick's forward", boundaries=list(ROW_BUCKETS)
        )
        self._images = Counter("chairlift_images_total", "Pictures made")
        self._restarts = Counter(
            "chairlift_worker_restarts_total", "Engine processes that were replaced"
        )
        client.listen(self._observe_activity)
        client.on_end.append(self._observe_end)
        client.on_restart = self._restarts.inc

    def _observe_activity(self, activity: Activity) -> None:
        self._backlog.set(activity.backlog_seconds)
        for tick in activity.ticks:
            self._tick_seconds.observe(tick.seconds)
            self._batch_rows.observe(len(tick.riders))

    def _observe_end(self, ride: Ride) -> None:
        if ride.outcome == "finished":
            self._images.inc(ride.request.n)
