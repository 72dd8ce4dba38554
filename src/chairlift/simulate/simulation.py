"""The virtual clock: jobs arrive, replicas turn, come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from chairlift.cluster.autoscaling import Observation
from chairlift.scheduling.costs import Costs
from chairlift.simulate.arrivals import OpenLoop, Source
from chairlift.simulate.autoscaler import Autoscaler
from chairlift.simulate.events import Events
from chairlift.simulate.fleet import Fleet
from chairlift.simulate.replica import BatchStatistics, Entry, Outcome, Replica, Schedules
from chairlift.simulate.router import Router
from chairlift.simulate.scenario import Scenario
from chairlift.simulate.truth import Truth
from chairlift.simulate.workload import Job


class Sample(NamedTuple):
    """A fleet at one moment."""

    now: float
    target: int
    """Replicas that there should be."""
    replicas: int
    """Those that take requests."""
    backlog_s: float
    """Of them all together."""
    waiting: int
    """Jobs that have found no replica."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulation:
    """What became of a workload."""

    outcomes: list[Outcome]
    """In order of arrival."""
    statistics: list[BatchStatistics]
    """Of each replica."""
    lost: int = 0
    """Jobs that have neither an outcome nor a refusal; that there are any is an error."""
    refused: int = 0
    """Jobs for which there was no replica for too long."""
    replayed: int = 0
    """How often a job was played again, because its replica was gone."""
    starts: int = 0
    """Replicas that were started, those of the beginning not among them."""
    failures: int = 0
    """Replicas that died."""
    removals: int = 0
    """Replicas that were taken away."""
    samples: Sequence[Sample] = ()
    """The fleet at each decision of the autoscaler."""


def simulate(
    jobs: Iterable[Job] | Source, schedulers: Sequence[Schedules], router: Router, costs: Costs
) -> Simulation:
    """Run until everybody is done, on replicas that are always there. The same arguments have the
    same outcome.

    Args:
        jobs: What arrives.
        schedulers: One for each replica; they must be fresh.
        router: Sends each job to a replica when it arrives.
        costs: What ticks really take.
    """
    scenario = Scenario(replicas=len(schedulers))
    return simulate_fleet(jobs, scenario, iter(schedulers).__next__, router, costs)


def simulate_fleet(
    jobs: Iterable[Job] | Source,
    scenario: Scenario,
    create_scheduler: Callable[[], Schedules],
    router: Router,
    costs: Costs,
    seed: int = 0,
) -> Simulation:
    """Run until everybody is done. The same arguments have the same outcome.

    Args:
        jobs: What arrives.
        scenario: What the replicas go through.
        create_scheduler: Makes the scheduler of each replica.
        router: Sends each job to a replica when it arrives.
        costs: What ticks really take.
        seed: Of what is drawn in the scenario.
    """
    truth = Truth(costs)

    def create(number: int) -> Replica:
        return Replica(number, create_scheduler(), truth)

    source: Source = OpenLoop(jobs) if isinstance(jobs, Iterable) else jobs
    return _Run(source, scenario, create, router, seed).run()


class _Run:
    """One simulation under way."""

    def __init__(
        self,
        source: Source,
        scenario: Scenario,
        create: Callable[[int], Replica],
        router: Router,
        seed: int,
    ) -> None:
        self._source = source
        self._scenario = scenario
        self._router = router
        self._events = Events()
        self._fleet = Fleet(scenario, create, self._events, self, seed)
        self._autoscaler: Autoscaler | None = None
        self._waiting: dict[int, Entry] = {}
        """Jobs that have never had a replica."""
        self._accepted: list[Entry] = []
        """Jobs that have lost theirs. They are never refused."""
        self._count = self._unfinished = self._refused = self._replayed = 0
        self._outcomes: dict[int, Outcome] = {}
        self._samples: list[Sample] = []

    def run(self) -> Simulation:
        source, events = self._source, self._events
        now = source.next_arrival() or 0.0
        self._fleet.begin(now)
        if self._scenario.autoscaling:
            options, requests = self._scenario.autoscaling, self._scenario.target_requests
            self._autoscaler = Autoscaler(options, requests)
            events.at(now, self._scale)
        while True:
            arrival = source.next_arrival()
            # Everybody who comes at an instant is there before anything else happens.
            if arrival is not None and (not events or arrival <= events.next_at):
                now = arrival
                self._arrive(now)
            elif self._unfinished or arrival is not None:
                now = events.next_at
                events.happen()
            else:
                break
        self._fleet.close(now)
        return self._result()

    def _result(self) -> Simulation:
        outcomes, history = self._outcomes, self._fleet.history
        return Simulation(
            outcomes=[outcomes[number] for number in sorted(outcomes)],
            statistics=history.statistics,
            lost=self._count - len(outcomes) - self._refused,
            refused=self._refused,
            replayed=self._replayed,
            starts=history.starts,
            failures=history.failures,
            removals=history.removals,
            samples=self._samples,
        )

    # ------------------------------------------------------------------ jobs

    def _arrive(self, now: float) -> None:
        job = self._source.pop()
        entry = Entry(self._count, job, job.shape)
        self._count += 1
        self._unfinished += 1
        if len(self._fleet.board):
            self._route(entry, now)
            return
        self._waiting[entry.number] = entry
        if options := self._scenario.autoscaling:
            self._events.at(now + options.max_wait_s, partial(self._refuse, entry.number))

    def _refuse(self, number: int, now: float) -> None:
        """A job has waited too long, if it waits still."""
        if self._waiting.pop(number, None):
            self._refused += 1
            self._unfinished -= 1

    def _route(self, entry: Entry, now: float) -> None:
        board, shape = self._fleet.board, entry.shape
        replica = board[self._router(board, shape, now)]
        before = replica.next_turn
        replica.submit(entry, now)
        board.submitted(replica, shape)
        if replica.next_turn != before:
            self._expect(replica)

    def _expect(self, replica: Replica) -> None:
        assert replica.next_turn is not None
        self._events.at(replica.next_turn, partial(self._turn, replica))

    def _turn(self, replica: Replica, now: float) -> None:
        if replica.next_turn != now:
            return  # It has come to be another time, or there is none any more.
        for entry, outcome in replica.turn(now):
            self._outcomes[entry.number] = outcome
            self._unfinished -= 1
            self._fleet.board.finished(replica, entry.shape)
            self._source.finished(entry.job, now)
        if replica.next_turn is not None:
            self._expect(replica)
        self._fleet.turned(replica, now)

    # ------------------------------------------------------------------ what the fleet tells

    def opened(self, now: float) -> None:
        """There is a replica more that takes requests."""
        waiting = [*self._accepted, *self._waiting.values()]
        self._accepted.clear()
        self._waiting.clear()
        for entry in waiting:
            self._route(entry, now)

    def lost(self, entries: Sequence[Entry], now: float) -> None:
        """A replica has gone with these aboard: they are played again from the beginning."""
        self._replayed += len(entries)
        for entry in entries:
            if len(self._fleet.board):
                self._route(entry, now)
            else:
                self._accepted.append(entry)

    # ------------------------------------------------------------------ autoscaling

    def _scale(self, now: float) -> None:
        assert self._autoscaler is not None
        fleet, board = self._fleet, self._fleet.board
        backlog = float(board.backlogs(now)[board.seats].sum())
        waiting = len(self._waiting) + len(self._accepted)
        requests = int(board.requests[board.seats].sum()) + waiting
        self._samples.append(Sample(now, fleet.target, len(board), backlog, waiting))
        seen = Observation(now=now, target=fleet.target, backlog_seconds=backlog, waiting=waiting)
        fleet.scale(self._autoscaler(seen, requests), now)
        self._events.at(now + self._scenario.evaluation_s, self._scale)
