"""The virtual clock: jobs arrive, replicas turn."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chairlift.scheduling.costs import Costs
from chairlift.simulate.arrivals import OpenLoop, Source
from chairlift.simulate.replica import BatchStatistics, Outcome, Replica, Schedules
from chairlift.simulate.router import Router
from chairlift.simulate.workload import Job


@dataclass(frozen=True, slots=True)
class Simulation:
    """What became of a workload."""

    outcomes: list[Outcome]
    """In order of arrival."""
    statistics: list[BatchStatistics]
    """Of each replica."""


def simulate(
    jobs: Iterable[Job] | Source, schedulers: Sequence[Schedules], router: Router, costs: Costs
) -> Simulation:
    """Run until everybody is done. The same arguments have the same outcome.

    Args:
        jobs: What arrives.
        schedulers: One for each replica; they must be fresh.
        router: Sends each job to a replica when it arrives.
        costs: What ticks really take.
    """
    source: Source = OpenLoop(jobs) if isinstance(jobs, Iterable) else jobs
    replicas = [Replica(number, one, costs) for number, one in enumerate(schedulers)]
    outcomes: dict[int, Outcome] = {}
    # Times of turns, of which those that aren't the replica's next turn any more are passed over.
    turns: list[tuple[float, int]] = []
    count = 0
    while True:
        arrival = source.next_arrival()
        if arrival is not None and (not turns or arrival <= turns[0][0]):
            # Everybody who comes at this instant is there before anybody turns.
            replica = router(replicas)
            replica.submit(source.pop(), count)
            count += 1
            if replica.idle:
                replica.next_turn = arrival
                heapq.heappush(turns, (arrival, replica.number))
            continue
        if not turns:
            break
        now, number = heapq.heappop(turns)
        replica = replicas[number]
        if replica.next_turn != now:
            continue
        for key, outcome in replica.turn(now):
            outcomes[key] = outcome
            source.finished(outcome.job, now)
        if replica.next_turn is not None:
            heapq.heappush(turns, (replica.next_turn, number))
    return Simulation(
        [outcomes[key] for key in sorted(outcomes)], [replica.statistics for replica in replicas]
    )
