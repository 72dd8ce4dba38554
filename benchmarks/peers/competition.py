"""Contestants take turns: the same pictures first, then the sweeps, then the rounds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from math import inf
from pathlib import Path

from benchmarks.peers.contestants import CONTESTANTS, Contestant
from benchmarks.peers.load import measure, warm_up
from benchmarks.peers.process import running
from benchmarks.peers.results import Measurement
from benchmarks.peers.sameness import MOST_LEVELS, ask_for_pictures, largest_difference
from benchmarks.peers.settings import Settings
from benchmarks.peers.sweep import Choices, Trial, sweep
from benchmarks.peers.workloads import EQUAL, Workload

REFERENCE = CONTESTANTS["off"]
"""Whose pictures all must draw: chairlift, one request at a time."""
SWEEP_REQUESTS = 64
"""All at once, in each trial: so many that two processes can fill two batches of 16 each."""
SWEEP_LOAD = 0.7
"""Of what the first trial has served, in each trial of the same contestant."""
SWEEP_SHARE = 0.6
"""Of the seconds of a workload, that a trial's arrivals take."""


class Competition:
    """All that is run.

    Args:
        contestants: Who takes part.
        workloads: On what.
        folder: Of the model.
        python: Of the peers' environment.
        seconds: That a workload of length 1 takes.
    """

    def __init__(
        self,
        contestants: Sequence[Contestant],
        workloads: Sequence[Workload],
        *,
        folder: str,
        python: Path,
        seconds: float,
    ) -> None:
        self._contestants = contestants
        self._workloads = workloads
        self._folder, self._python, self._seconds = folder, python, seconds
        self._sweep_rates: dict[str, float] = {}

    @property
    def peers(self) -> list[Contestant]:
        return [one for one in self._contestants if one.is_peer]

    def check_pictures(self, settings: Settings) -> dict[str, int]:
        """How far each contestant's pictures are from those of one worker of chairlift.

        Args:
            settings: Of all contestants.

        Raises:
            RuntimeError: A peer draws other pictures, so it is none.
        """
        with self._running(REFERENCE, Settings()) as url:
            reference = ask_for_pictures(url)
        differences = {}
        for contestant in self._contestants:
            with self._running(contestant, settings) as url:
                difference = largest_difference(reference, ask_for_pictures(url))
            if difference > MOST_LEVELS:
                raise RuntimeError(f"{contestant.title} differs by {difference}/255")
            _tell(f"{contestant.title}: pictures within {difference}/255")
            differences[contestant.name] = difference
        return differences

    # ------------------------------------------------------------------ sweeps

    def sweep(self, choices: Choices) -> Iterator[Trial]:
        """Look for the best settings of everybody."""
        for contestant in self._contestants:
            yield from sweep(contestant, choices, self._try)

    def _try(self, contestant: Contestant, settings: Settings) -> Trial:
        """One trial: at once, then at a rate that all trials of this contestant have."""
        at_once = Workload(name="sweep-at-once", title="", length=1.0)
        arrivals = Workload(name="sweep-poisson", title="", length=1.0, load=SWEEP_LOAD)
        with self._running(contestant, settings) as url:
            warm_up(url)
            throughput = measure(
                url, at_once, at_once.requests(SWEEP_REQUESTS, 1.0, seed=1)
            ).throughput
            rate = self._sweep_rates.setdefault(contestant.name, throughput)
            requests = arrivals.requests(rate, SWEEP_SHARE * self._seconds, seed=2)
            latency = measure(url, arrivals, requests).seconds["latency"]
        assert latency is not None, "nothing was completed"
        _tell(
            f"{contestant.title}, {settings}: "
            f"{throughput:.2f} requests/s, mean {latency.mean:.2f} s"
        )
        return Trial(
            contestant=contestant.name,
            settings=settings,
            throughput=throughput,
            mean_s=latency.mean,
        )

    # ------------------------------------------------------------------ rounds

    def run(
        self, rounds: int, settings: Mapping[str, Settings], capacity: float
    ) -> Iterator[Measurement]:
        """All rounds; in each of them everybody runs once, beginning with another one."""
        for number in range(rounds):
            first = number * len(self._contestants) // rounds
            for contestant in (*self._contestants[first:], *self._contestants[:first]):
                with self._running(contestant, settings[contestant.name]) as url:
                    warm_up(url)
                    yield from self._turn(number, contestant, url, capacity)

    def _turn(
        self, number: int, contestant: Contestant, url: str, capacity: float
    ) -> Iterator[Measurement]:
        """All workloads for one contestant."""
        served: list[float] = []
        for workload in self._workloads:
            summary = None
            if workload.rate(capacity) <= max(served, default=inf) or workload.is_saturating:
                requests = workload.requests(capacity, self._seconds, seed=number)
                summary = measure(url, workload, requests)
                if workload.is_saturating and workload.kinds is EQUAL:
                    served.append(summary.throughput)
            rate = f"{summary.throughput:.2f} requests/s" if summary else "overloaded"
            _tell(f"round {number + 1}, {contestant.title}, {workload.title}: {rate}")
            yield Measurement(
                round=number,
                contestant=contestant.name,
                workload=workload.name,
                summary=summary,
            )

    def _running(self, contestant: Contestant, settings: Settings) -> AbstractContextManager[str]:
        return running(contestant, settings, folder=self._folder, python=self._python)


def _tell(text: str) -> None:
    """With the time of day."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)
