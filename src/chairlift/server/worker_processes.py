"""Prometheus metrics of the worker processes, which come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import Metric, ProcessCollector
from prometheus_client.registry import Collector

NAMESPACE = "chairlift_engine"
START = f"{NAMESPACE}_process_start_time_seconds"


class WorkerProcesses(Collector):
    """What :class:`ProcessCollector` says of one process, of all workers together: the sums, and
    the start of the one that has started last.

    Args:
        pids: Returns the process ids of those that there are.
    """

    def __init__(self, pids: Callable[[], Sequence[int]]) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        """Nothing while there is no worker."""
        of_all = [_collect(pid) for pid in self._pids()]
        for name in {name: None for metrics in of_all for name in metrics}:
            metrics = [metrics[name] for metrics in of_all if name in metrics]
            together = max if name == START else sum
            # One sample each.
            first = metrics[0].samples[0]
            value = together(metric.samples[0].value for metric in metrics)
            merged = Metric(name, metrics[0].documentation, metrics[0].type)
            merged.samples = [first._replace(value=value)]
            yield merged


def _collect(pid: int) -> dict[str, Metric]:
    collector = ProcessCollector(NAMESPACE, lambda: pid, registry=None)
    return {metric.name: metric for metric in collector.collect()}
