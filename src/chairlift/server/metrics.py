"""The Prometheus metrics. No prompt, key or request id is ever a label."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

import chairlift
from chairlift.engine.messages import Activity
from chairlift.engine.ride import OUTCOMES, Ride
from chairlift.errors import (
    REQUEST_ERRORS,
    RequestError,
    Unavailable,
)
from chairlift.server.engine import Engine
from chairlift.server.events import Streams
from chairlift.server.jobs.job import JobStatus
from chairlift.server.jobs.statistics import StoreStatistics
from chairlift.server.worker_processes import WorkerProcesses

# Neighbours differ by at most a factor of 2, so that a quantile between them isn't far off.
_REQUEST_BUCKETS = (
    0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 45,
    60, 90, 120, 180, 300, 450, 600, 1200,
)  # fmt: skip
_QUEUE_BUCKETS = (0.01, 0.02, 0.03, *_REQUEST_BUCKETS)
_STAGE_BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.0075, *_QUEUE_BUCKETS)
TICK_BUCKETS = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1,
    0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60,
)  # fmt: skip
ROW_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)

STAGES = ("encode", "denoise", "decode")

REFUSALS = tuple(code for code, error in REQUEST_ERRORS.items() if error.is_refusal())
"""The codes of requests that were not accepted."""


class Metrics:
    """All metrics of one server, in a registry of their own.

    Args:
        client: The engine.
        streams: Those that are open.
    """

    def __init__(self, client: Engine, streams: Streams) -> None:
        self.registry = _Registry()
        self.registry.register(_About(client))
        self._count_requests(client)
        self._time_requests()
        self._watch_engine(client)
        self._watch_jobs()
        self._gauge("chairlift_streams_open", "Event streams that are open", lambda: streams.open)
        self._watch_processes(client)
        client.on_end.append(self._observe_end)
        client.listen(self._observe_activity)

    # ------------------------------------------------------------------ what there is

    def _count_requests(self, client: Engine) -> None:
        self._requests = Counter(
            "chairlift_requests", "Requests that ended", ["outcome"], registry=self.registry
        )
        for outcome in OUTCOMES:
            self._requests.labels(outcome=outcome)
        self._images = Counter("chairlift_images", "Pictures made", registry=self.registry)
        self._rejected = Counter(
            "chairlift_rejected", "Requests that were refused", ["reason"], registry=self.registry
        )
        for code in REFUSALS:
            self._rejected.labels(reason=code)
        self._gauge(
            "chairlift_requests_running",
            "Requests of which a picture has been in a tick",
            lambda: sum(ride.boarded.is_set() for ride in client.rides.values()),
        )
        self._gauge(
            "chairlift_requests_waiting",
            "Requests that wait for their first tick",
            lambda: sum(not ride.boarded.is_set() for ride in client.rides.values()),
        )

    def _time_requests(self) -> None:
        self._request_seconds = Histogram(
            "chairlift_request_seconds",
            "Time of a finished request, from its acceptance to its pictures",
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self._queue_seconds = Histogram(
            "chairlift_queue_seconds",
            "Time that a finished request waited before it was encoded",
            buckets=_QUEUE_BUCKETS,
            registry=self.registry,
        )
        self._stage_seconds = Histogram(
            "chairlift_stage_seconds",
            "Time of a finished request in a stage, of its slowest picture",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=self.registry,
        )
        for stage in STAGES:
            self._stage_seconds.labels(stage=stage)

    def _watch_engine(self, client: Engine) -> None:
        self._tick_seconds = Histogram(
            "chairlift_tick_seconds",
            "Time of a tick",
            buckets=TICK_BUCKETS,
            registry=self.registry,
        )
        self._batch_rows = Histogram(
            "chairlift_batch_rows",
            "Rows in a tick's forward",
            buckets=ROW_BUCKETS,
            registry=self.registry,
        )
        self._gauge(
            "chairlift_ready",
            "1 while the engine takes work, otherwise 0",
            lambda: client.takes_requests and client.is_ready,
        )
        self._gauge(
            "chairlift_backlog_seconds",
            "Predicted seconds of work accepted and not yet done",
            lambda: client.activity.backlog_seconds,
        )
        self._gauge(
            "chairlift_heartbeat_age_seconds",
            "For how long the engine has said nothing although it loads or has work",
            lambda: client.silent_seconds,
        )
        restarts = Counter(
            "chairlift_worker_restarts",
            "Engine processes that were replaced",
            registry=self.registry,
        )
        client.on_restart = restarts.inc

    def _watch_jobs(self) -> None:
        self._jobs = Gauge("chairlift_jobs", "Jobs stored", ["status"], registry=self.registry)
        for status in JobStatus:
            self._jobs.labels(status=status)
        self._job_picture_bytes = Gauge(
            "chairlift_job_picture_bytes", "Size of all jobs' pictures", registry=self.registry
        )

    def _watch_processes(self, client: Engine) -> None:
        """Memory, CPU time and open files of the front end, and of the workers that there are; only
        where there is /proc.
        """
        ProcessCollector(registry=self.registry)
        self.registry.register(WorkerProcesses(lambda: client.worker_pids))

    def _gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        Gauge(name, text, registry=self.registry).set_function(read)

    # ------------------------------------------------------------------ what happens

    def observe_refused(self, error: RequestError) -> None:
        """Count a request that was not accepted; the error is one of :data:`REFUSALS`."""
        self._rejected.labels(reason=error.code).inc()

    def observe_jobs(self, statistics: StoreStatistics) -> None:
        """Show how many jobs are stored."""
        for status, jobs in statistics.jobs.items():
            self._jobs.labels(status=status).set(jobs)
        self._job_picture_bytes.set(statistics.picture_bytes)

    def _observe_end(self, ride: Ride) -> None:
        self._requests.labels(outcome=ride.outcome).inc()
        if ride.outcome == "finished":
            self._images.inc(ride.request.n)
            # As the caller sees it, who has also waited for the workers that died meanwhile.
            self._request_seconds.observe(asyncio.get_running_loop().time() - ride.submitted)
            timings = ride.answer.result().timings
            self._queue_seconds.observe(timings.queue_s)
            for stage in STAGES:
                seconds = getattr(timings, f"{stage}_s")
                self._stage_seconds.labels(stage=stage).observe(seconds)

    def _observe_activity(self, activity: Activity) -> None:
        for tick in activity.ticks:
            self._tick_seconds.observe(tick.seconds)
            self._batch_rows.observe(len(tick.riders))


class _Registry(CollectorRegistry):
    """Exports no time series of when each counter was made, which would be as many again."""

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [
                sample for sample in metric.samples if not sample.name.endswith("_created")
            ]
            yield metric


class _About(Collector):
    """What is served, as the labels of a metric that is always 1."""

    def __init__(self, client: Engine) -> None:
        self._client = client

    def collect(self) -> Iterator[Metric]:
        labels = ("version", "model", "dtype", "device")
        about = GaugeMetricFamily("chairlift_info", "What is served; always 1", labels=labels)
        try:
            card = self._client.card
        except Unavailable:  # The model is being loaded.
            return
        about.add_metric((chairlift.__version__, card.id, card.dtype, card.device), 1)
        yield about
