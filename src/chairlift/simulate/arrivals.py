"""When jobs come: from a seed, in several patterns, all of the same mean rate.

The same seed draws the same jobs in the same order, whatever the pattern and the rate.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from chairlift.errors import ConfigurationError
from chairlift.simulate.workload import Job, Mix, draw_jobs

VARIATION = 2.0
"""Standard deviation over mean of the time between two jobs (``gamma``); 1 would be Poisson."""
BURST = 20
"""Jobs in the mean burst (``on-off``)."""
ON = 0.25
"""Share of the time that is burst (``on-off``)."""
CLIENTS = 16
"""How many there are (``closed``)."""
DAY = 86_400.0
"""Seconds after which the rate begins again (``day``)."""
SWING = 0.6
"""By this share of the mean the rate is lower at the beginning of a day, and higher in its middle
(``day``)."""
FLOOD = 3.0
"""So many times the rate of the hour during a flood (``day``)."""
FLOOD_S = 300.0
"""Mean seconds of a flood, which are exponential (``day``)."""
FLOODS = 24
"""Mean number of floods a day (``day``)."""
RESOLUTION = 10.0
"""Seconds for which the rate is the same (``day``)."""

Times = NDArray[np.float64]


class Source(Protocol):
    """Where the simulation's jobs come from."""

    def next_arrival(self) -> float | None:
        """When the next job comes, as far as one is known."""

    def pop(self) -> Job:
        """Take that job."""

    def finished(self, job: Job, at: float) -> None:
        """Be told that a job is done."""


class OpenLoop:
    """Jobs that come when they come."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = sorted(jobs, key=lambda job: job.arrival_s)[::-1]

    def next_arrival(self) -> float | None:
        return self._jobs[-1].arrival_s if self._jobs else None

    def pop(self) -> Job:
        return self._jobs.pop()

    def finished(self, job: Job, at: float) -> None:
        pass


class ClosedLoop:
    """Clients that each wait for their picture, think for a while, and ask for the next.

    Args:
        mix: What they ask for.
        requests: Of all clients together.
        clients: How many there are.
        think_s: Mean of the time, which is exponential, between a picture and the next request;
            also before the first one.
        seed: Of all that is drawn.
    """

    def __init__(self, mix: Mix, requests: int, clients: int, think_s: float, seed: int) -> None:
        jobs, times = create_generators(seed)
        self._thinks = times.exponential(think_s, requests) if think_s else np.zeros(requests)
        self._drawn = draw_jobs(mix, [0.0] * requests, jobs)
        self._count = 0
        self._ready: list[tuple[float, int, Job]] = []
        for _ in range(min(clients, requests)):
            self._think(0.0)

    def _think(self, now: float) -> None:
        number = self._count
        if number == len(self._drawn):
            return
        self._count += 1
        arrival, drawn = now + float(self._thinks[number]), self._drawn[number]
        heapq.heappush(self._ready, (arrival, number, replace(drawn, arrival_s=arrival)))

    def next_arrival(self) -> float | None:
        return self._ready[0][0] if self._ready else None

    def pop(self) -> Job:
        return heapq.heappop(self._ready)[2]

    def finished(self, job: Job, at: float) -> None:
        self._think(at)


def create_source(pattern: str, mix: Mix, rate: float, requests: int, seed: int) -> Source:
    """Jobs from a seed.

    Args:
        pattern: One of :data:`~chairlift.simulate.names.ARRIVAL_NAMES`.
        mix: What they are.
        rate: Jobs a second. Clients of a closed loop would reach it if pictures took no time.
        requests: How many.
        seed: Of all that is drawn.

    Raises:
        ConfigurationError: There is no such pattern.
    """
    if pattern == "closed":
        return ClosedLoop(mix, requests, CLIENTS, CLIENTS / rate, seed)
    patterns = {"poisson": _poisson, "gamma": _gamma, "on-off": _on_off, "day": _day}
    if pattern not in patterns:
        names = ", ".join((*patterns, "closed"))
        raise ConfigurationError(f"the arrivals are {pattern!r}; they must be one of {names}")
    jobs, times = create_generators(seed)
    return OpenLoop(draw_jobs(mix, patterns[pattern](times, requests, rate).tolist(), jobs))


def create_generators(seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    """For what jobs are, and for when they come."""
    return np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])


def _poisson(rng: np.random.Generator, count: int, rate: float) -> Times:
    return np.cumsum(rng.exponential(1 / rate, count))


def _gamma(rng: np.random.Generator, count: int, rate: float) -> Times:
    return gamma_times(rng, count, rate, 1 / VARIATION**2)


def gamma_times(rng: np.random.Generator, count: int, rate: float, shape: float) -> Times:
    """Arrivals with gamma-distributed times between them. A shape of 1 is a Poisson process;
    below that there are many short times and some very long, above they are more even.
    """
    return np.cumsum(rng.gamma(shape, 1 / (shape * rate), count))


def _on_off(rng: np.random.Generator, count: int, rate: float) -> Times:
    """A Poisson process that runs only during bursts; bursts and pauses are exponential."""
    # Arrivals on a clock that stands still during pauses.
    busy = np.cumsum(rng.exponential(ON / rate, count))
    bursts = np.cumsum(rng.exponential(BURST * ON / rate, count))
    pauses = np.cumsum(rng.exponential(BURST * (1 - ON) / rate, count))
    before = np.searchsorted(bursts, busy)
    return busy + np.where(before, pauses[before - 1], 0.0)


def _day(rng: np.random.Generator, count: int, rate: float) -> Times:
    """A Poisson process whose rate follows the day, and is higher during floods."""
    grid = np.arange(0.0, 2 * count / rate + 2 * DAY, RESOLUTION)
    course = 1 - SWING * np.cos(2 * np.pi * grid / DAY)
    mean_gap = DAY / FLOODS - FLOOD_S
    most = int(4 * grid[-1] / DAY * FLOODS) + 16
    gaps, lengths = rng.exponential(mean_gap, most), rng.exponential(FLOOD_S, most)
    begins = np.cumsum(gaps + lengths) - lengths
    last = np.searchsorted(begins, grid) - 1
    flooded = (last >= 0) & (grid < begins[last] + lengths[last])
    course *= np.where(flooded, FLOOD, 1.0)
    # As many arrivals in the mean as the other patterns have.
    course /= 1 + (FLOOD - 1) * FLOOD_S * FLOODS / DAY
    expected = rate * RESOLUTION * np.concatenate([[0.0], np.cumsum(course)[:-1]])
    return np.asarray(np.interp(np.cumsum(rng.exponential(1.0, count)), expected, grid))
