"""From the moments at which requests came and ended to the figures of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from benchmarks.machine import percentile

ROUNDS = 3
"""Pictures of each client of a closed loop, at least: those of the first and of the last round only
say from when and until when is counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Of one measurement."""

    pictures: int
    """That were counted."""
    throughput: float
    """Pictures a second."""
    mean_s: float
    """Latency, until the picture's file is there."""
    p50_s: float
    p99_s: float
    """Of less than a hundred pictures: the slowest."""
    slowdown: float
    """Mean latency over the time that a picture takes alone."""
    tick_rows: float
    """Mean number of rows in a forward."""

    def __str__(self) -> str:
        latency = f"mean {self.mean_s:.3f} s, p50 {self.p50_s:.3f} s, p99 {self.p99_s:.3f} s"
        return (
            f"{self.throughput:.3f} pictures/s, {latency}, slowdown {self.slowdown:.2f}, "
            f"{self.tick_rows:.1f} rows a tick ({self.pictures} pictures)"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What has become of the requests of one measurement. Moments are seconds."""

    rides: Sequence[tuple[float, float]]
    """When each picture was asked for, and when its file was there."""
    failures: Sequence[str]
    """Why there are no others."""
    tick_rows: Sequence[int]
    """Rows of each forward."""

    def figures(self, alone_s: float) -> Figures | None:
        """Of all pictures, from the first arrival to the last end; None if there is no picture.

        Args:
            alone_s: What a picture takes alone.
        """
        if not self.rides:
            return None
        seconds = max(end for _, end in self.rides) - min(arrival for arrival, _ in self.rides)
        return self._figures(self.rides, len(self.rides) / seconds, alone_s)

    def steady_figures(self, clients: int, alone_s: float) -> Figures | None:
        """Of a closed loop: the pictures between its first round and its last."""
        rides = sorted(self.rides, key=lambda ride: ride[1])
        if len(rides) < ROUNDS * clients:
            return self.figures(alone_s)
        ends = [end for _, end in rides]
        first, last = steady_part(ends, clients)
        throughput = (last - first) / (ends[last] - ends[first])
        return self._figures(rides[first + 1 : last + 1], throughput, alone_s)

    def _figures(
        self, rides: Sequence[tuple[float, float]], throughput: float, alone_s: float
    ) -> Figures:
        latencies = [end - arrival for arrival, end in rides]
        return Figures(
            pictures=len(rides),
            throughput=throughput,
            mean_s=fmean(latencies),
            p50_s=percentile(latencies, 0.5),
            p99_s=percentile(latencies, 0.99),
            slowdown=fmean(latencies) / alone_s,
            tick_rows=fmean(self.tick_rows) if self.tick_rows else 0.0,
        )


def steady_part(ends: Sequence[float], clients: int) -> tuple[int, int]:
    """Places of the ends between which pictures a second are counted. Rows that began together end
    together, so each is one with a long pause behind it: the first such of the second round, and
    the last such of the last one.

    Args:
        ends: In order; at least :data:`ROUNDS` times as many as clients.
    """
    pauses = [later - end for end, later in pairwise(ends)]

    def long_pauses(places: range) -> list[int]:
        longest = max(pauses[place] for place in places)
        return [place for place in places if pauses[place] >= longest / 2]

    second = range(clients - 1, 2 * clients - 1)
    last = range(len(pauses) - clients, len(pauses))
    return long_pauses(second)[0], long_pauses(last)[-1]
