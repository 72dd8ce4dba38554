"""The loads: a closed loop, all at once, Poisson arrivals; each to a loop in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import count

from benchmarks.gpu.figures import ROUNDS, Outcome
from benchmarks.gpu.settings import Mode
from benchmarks.inside import Station
from chairlift.bench.prompts import draw_prompts
from chairlift.models.adapter import Adapter
from chairlift.request import GenerationRequest
from chairlift.scheduling.scheduler import MAX_BATCH_SIZE
from chairlift.simulate.arrivals import create_generators, gamma_times
from chairlift.validation import create_request

WARM_UP_STEPS = 5
"""Of the requests that nobody counts."""
ALONE = 2
"""Pictures that are made alone; the faster one counts."""


class Lift:
    """A loop that batches in one way, and requests of one kind.

    Args:
        adapter: The model; the calling thread is the one that has loaded it.
        mode: How it batches.
        side: Of the pictures, in pixels.
        steps: Of each request.
        memory: Bytes for all rows that have slots.
    """

    def __init__(self, adapter: Adapter, mode: Mode, side: int, steps: int, memory: float) -> None:
        self.mode = mode
        self._adapter = adapter
        self._side = side
        self._steps = steps
        self._station = Station(adapter, mode.create_scheduler(memory))
        self._numbers = count()
        self._prompts = draw_prompts(0)

    def warm_up(self, most: int) -> None:
        """Serve 1, 2, 4 … up to ``most`` requests together, but no more than a forward takes. They
        have few steps: everything that is compiled or allocated is, and what steps cost is known.
        """
        most = min(most, self.mode.max_batch_size or MAX_BATCH_SIZE)
        if self.mode.batching == "off":
            most = 1
        for rows in [*(1 << power for power in range((most - 1).bit_length())), most]:
            self._serve([self._create(min(WARM_UP_STEPS, self._steps)) for _ in range(rows)])

    def alone(self) -> float:
        """Seconds of a picture that has the machine to itself.

        Raises:
            RuntimeError: It couldn't be made.
        """
        seconds = []
        for _ in range(ALONE):
            outcome = self._serve([self._create()])
            if outcome.failures:
                raise RuntimeError(outcome.failures[0])
            [(arrival, end)] = outcome.rides
            seconds.append(end - arrival)
        return min(seconds)

    def at_once(self, requests: int) -> Outcome:
        """All of them together."""
        return self._serve([self._create() for _ in range(requests)])

    def poisson(self, times: Sequence[float]) -> Outcome:
        """One at each of these moments, in seconds from now, whatever becomes of the others."""
        station, before = self._station, _Before(self._station)
        requests = [self._create() for _ in times]
        start = time.monotonic()

        def send() -> None:
            for request, moment in zip(requests, times, strict=True):
                time.sleep(max(0.0, start + moment - time.monotonic()))
                station.submit(request, start + moment)

        threading.Thread(target=send, name="arrivals", daemon=True).start()
        while station.ends < before.ends + len(requests):
            station.turn()
        return before.outcome()

    def closed(self, clients: int, seconds: float) -> Outcome:
        """Each client sends its next request when it has its picture: for so long, and so many
        times on average as are needed to count. What is under way then is cancelled.
        """
        station, before = self._station, _Before(self._station)
        stopped = threading.Event()

        def again(request_id: str, failure: str | None) -> None:
            if failure is None and not stopped.is_set():
                station.submit(self._create())

        station.ended = again
        start = time.monotonic()
        for _ in range(clients):
            station.submit(self._create())
        least = before.ends + ROUNDS * clients
        while station.is_busy and (station.ends < least or time.monotonic() < start + seconds):
            station.turn()
        stopped.set()
        station.cancel()
        station.ended = lambda request_id, failure: None
        return before.outcome()

    def close(self) -> None:
        """End the loop."""
        self._station.close()

    def _serve(self, requests: Sequence[GenerationRequest]) -> Outcome:
        before = _Before(self._station)
        for request in requests:
            self._station.submit(request)
        while self._station.ends < before.ends + len(requests):
            self._station.turn()
        return before.outcome()

    def _create(self, steps: int | None = None) -> GenerationRequest:
        number = next(self._numbers)
        return create_request(
            self._adapter.card,
            id=str(number),
            prompt=self._prompts(number),
            width=self._side,
            height=self._side,
            steps=self._steps if steps is None else steps,
            sampler="euler",
            seed=number,
        )


class _Before:
    """How things stood at a station when a measurement began."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._known = set(station.arrivals)
        self._ticks = len(station.tick_rows)
        self.ends = station.ends

    def outcome(self) -> Outcome:
        """What has happened since."""
        station = self._station
        arrivals = {
            id: arrival for id, arrival in station.arrivals.items() if id not in self._known
        }
        return Outcome(
            rides=[
                (arrival, station.finished[id])
                for id, arrival in arrivals.items()
                if id in station.finished
            ],
            failures=[station.failed[id] for id in arrivals if id in station.failed],
            tick_rows=station.tick_rows[self._ticks :],
        )


def poisson_times(rate: float, count: int, seed: int) -> list[float]:
    """Moments, in seconds, of so many arrivals, ``rate`` a second in the mean; the same for the
    same seed, and for another rate only closer or wider.
    """
    _, times = create_generators(seed)
    return [float(moment) for moment in gamma_times(times, count, rate, 1.0)]
