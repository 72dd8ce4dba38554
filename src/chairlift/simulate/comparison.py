"""The same jobs under several policies and loads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from chairlift.errors import ConfigurationError
from chairlift.scheduling.costs import Costs
from chairlift.simulate.arrivals import OpenLoop, Source, create_source
from chairlift.simulate.contestant import create_scheduler
from chairlift.simulate.names import MIX_NAMES
from chairlift.simulate.report import Report, create_report, mean_report
from chairlift.simulate.router import create_router
from chairlift.simulate.scenario import Scenario
from chairlift.simulate.simulation import Sample, simulate_fleet
from chairlift.simulate.workload import MIXES, Job, capacity

Workload = Callable[[float | None, int], Source]
"""A load and a seed to the jobs."""


@dataclass(frozen=True, slots=True)
class Result:
    """One policy at one load."""

    mean: Report
    each: list[Report]
    """For each seed."""
    samples: Sequence[Sample]
    """Of the first seed: the fleet at each decision of the autoscaler."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What is compared, and on what."""

    costs: Costs
    """What ticks take, and what the schedulers know at the beginning."""
    workload: Workload
    policies: Sequence[str]
    loads: Sequence[float | None]
    """Shares of the capacity; None for a workload that has a rate of its own."""
    seeds: Sequence[int]
    scenario: Scenario = field(default_factory=Scenario)
    """How many replicas there are, and what they go through."""
    router: str = "round-robin"
    max_batch_size: int | None = None

    def run(self) -> Iterator[Result]:
        """Each policy at each load.

        Raises:
            ConfigurationError: A name is none.
        """
        for policy in self.policies:
            create_scheduler(policy, self.costs, self.max_batch_size)
        for policy in self.policies:
            for load in self.loads:
                ran = [self._run(policy, load, seed) for seed in self.seeds]
                each = [report for report, _ in ran]
                yield Result(mean_report(each), each, ran[0][1])

    def _run(self, policy: str, load: float | None, seed: int) -> tuple[Report, Sequence[Sample]]:
        simulation = simulate_fleet(
            self.workload(load, seed),
            self.scenario,
            partial(create_scheduler, policy, self.costs, self.max_batch_size),
            create_router(self.router, seed),
            self.costs,
            seed,
        )
        return create_report(policy, load, simulation), simulation.samples


def given_workload(jobs: Sequence[Job]) -> Workload:
    """The same jobs always."""
    return lambda load, seed: OpenLoop(jobs)


def drawn_workload(
    *, arrivals: str, mix: str, requests: int, costs: Costs, replicas: int
) -> Workload:
    """Jobs of a mix, in a pattern, at a share of what the replicas can do.

    Raises:
        ConfigurationError: There is no such mix or pattern.
    """
    if mix not in MIXES:
        raise ConfigurationError(f"mix is {mix!r}; it must be one of {', '.join(MIX_NAMES)}")
    most = capacity(costs, MIXES[mix]) * replicas
    create_source(arrivals, MIXES[mix], most, 1, 0)  # Refuses a name that is none.

    def draw(load: float | None, seed: int) -> Source:
        assert load is not None
        return create_source(arrivals, MIXES[mix], load * most, requests, seed)

    return draw
