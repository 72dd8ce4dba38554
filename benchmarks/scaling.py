"""Many replicas, simulated: routers, autoscaling, failures, and how fast that is.

    python -m benchmarks.scaling [routing autoscaling trouble day]

Names the parts, all of which are run if none is named; ``--share 0.1`` makes everything a tenth as
long. Only the durations depend on the machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from chairlift.cluster.autoscaling import AutoscalingOptions
from chairlift.scheduling.costs import Costs
from chairlift.simulate.arrivals import Source, create_source
from chairlift.simulate.contestant import create_scheduler
from chairlift.simulate.names import ROUTER_NAMES
from chairlift.simulate.report import GOOD, Report, create_report
from chairlift.simulate.router import create_router
from chairlift.simulate.scenario import Scenario
from chairlift.simulate.simulation import simulate_fleet
from chairlift.simulate.workload import MIXES, Job, capacity, draw_jobs
from chairlift.tables import load_costs

HOUR = 3600.0
MIX = MIXES["C"]
BURST = 50
"""Pictures in a burst of one kind."""
BURSTS_PER_HOUR = 3
ROUTED = {4: 6000, 64: 12_000, 1000: 60_000}
"""Replicas to requests."""


def run(
    costs: Costs, jobs: Iterable[Job] | Source, scenario: Scenario, router: str = "least-backlog"
) -> Report:
    create = partial(create_scheduler, "balanced", costs)
    simulation = simulate_fleet(jobs, scenario, create, create_router(router, 1), costs, seed=1)
    return create_report("balanced", None, simulation)


def drawn(costs: Costs, replicas: int, load: float, count: int, arrivals: str, seed: int) -> Source:
    return create_source(arrivals, MIX, load * replicas * capacity(costs, MIX), count, seed)


def table(title: str, head: str, rows: Iterable[Sequence[object]]) -> None:
    """Print a table, row by row."""
    columns = head.split(", ")
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |", flush=True)


def latencies(report: Report) -> list[str]:
    values = (report.mean_s, report.p50_s, report.p95_s, report.p99_s)
    return [*(f"{value:.1f}" for value in values), f"{report.attainment[GOOD]:.3f}"]


def routing(costs: Costs, share: float) -> None:
    """Every router on fleets of three sizes."""

    def rows() -> Iterable[Sequence[object]]:
        for replicas, count in ROUTED.items():
            for router in ROUTER_NAMES:
                source = drawn(costs, replicas, 0.9, round(share * count), "poisson", 1)
                report = run(costs, source, Scenario(replicas=replicas), router)
                yield replicas, router, *latencies(report), f"{report.slowdown:.2f}"

    table(
        "Routing, mix C, Poisson, load 0.9",
        f"replicas, router, mean s, p50 s, p95 s, p99 s, ≤{GOOD:g}x, slowdown",
        rows(),
    )


def one_kind_bursts(costs: Costs, replicas: int, load: float, hours: float) -> list[Job]:
    """Poisson arrivals of the mix, and callers who ask for many pictures of one kind at once."""
    rate = load * replicas * capacity(costs, MIX)
    draw = np.random.default_rng(5)
    arrivals = np.cumsum(draw.exponential(1 / rate, round(rate * hours * HOUR)))
    jobs = draw_jobs(MIX, arrivals.tolist(), draw)
    for begin in np.sort(draw.uniform(0, hours * HOUR, max(1, round(BURSTS_PER_HOUR * hours)))):
        [kind] = draw_jobs([replace(one, weight=1) for one in MIX], [float(begin)], draw)
        jobs += [replace(kind, arrival_s=begin + 0.1 * place) for place in range(BURST)]
    return sorted(jobs, key=lambda job: job.arrival_s)


def autoscaling(costs: Costs, share: float) -> None:
    """The target in seconds beside the target in requests, on two kinds of bursts."""
    most, hours = 16, 24 * share
    count = round(0.22 * most * capacity(costs, MIX) * hours * HOUR)
    workloads: dict[str, Callable[[], Iterable[Job] | Source]] = {
        "a day's course and floods of the mix": lambda: drawn(costs, most, 0.22, count, "day", 1),
        "bursts of one kind": lambda: one_kind_bursts(costs, most, 0.12, hours),
    }
    targets: list[tuple[float | None, float | None]] = [(5, None), (8, None), (12, None)]
    targets += [(None, 0.75), (None, 1), (None, 1.5), (None, 2)]

    def rows(jobs: Callable[[], Iterable[Job] | Source]) -> Iterable[Sequence[object]]:
        for seconds, requests in targets:
            options = AutoscalingOptions(
                min_replicas=1, max_replicas=most, target_seconds=seconds or 10.0
            )
            scenario = Scenario(replicas=2, autoscaling=options, target_requests=requests)
            report = run(costs, jobs(), scenario)
            name = f"{requests:g} requests" if requests else f"{seconds:g} s of backlog"
            yield name, f"{report.replica_hours:.0f}", *latencies(report), f"{report.starts:g}"

    for name, jobs in workloads.items():
        table(
            f"Autoscaling, mix C, 1 to {most} replicas, {hours:g} h: {name}",
            f"target of a replica, replica-hours, mean s, p50 s, p95 s, p99 s, ≤{GOOD:g}x, starts",
            rows(jobs),
        )


def trouble(costs: Costs, share: float) -> None:
    """Replicas that die, and spot machines that are taken away."""
    base = Scenario(replicas=64, start_up_s=90)
    scenarios = {
        "none": base,
        "failures, one a day each": replace(base, failure_hours=24),
        "failures, one an hour each": replace(base, failure_hours=1),
        "removals, every 3 h, 120 s of notice": replace(base, removal_hours=3),
        "removals, every 3 h, 5 s of notice": replace(base, removal_hours=3, notice_s=5),
    }

    def rows() -> Iterable[Sequence[object]]:
        for name, scenario in scenarios.items():
            source = drawn(costs, 64, 0.9, round(share * 40_000), "poisson", 1)
            report = run(costs, source, scenario)
            gone = f"{report.failures + report.removals:g}"
            ends = (report.replayed, report.refused, report.lost)
            yield name, gone, *(f"{end:g}" for end in ends), *latencies(report)

    table(
        "Failures and removals, mix C, 64 replicas, Poisson, load 0.9",
        f"trouble, gone, played again, refused, lost, mean s, p50 s, p95 s, p99 s, ≤{GOOD:g}x",
        rows(),
    )


def day(costs: Costs, share: float) -> None:
    """A day of up to 1,000 replicas."""
    most = 1000
    options = AutoscalingOptions(min_replicas=50, max_replicas=most, target_seconds=6)
    scenario = Scenario(
        replicas=100, autoscaling=options, start_up_s=90, failure_hours=24, removal_hours=12
    )
    count = round(share * 0.22 * most * capacity(costs, MIX) * 24 * HOUR)
    source = drawn(costs, most, 0.22, count, "day", 1)
    start = time.process_time()
    report = run(costs, source, scenario)
    minutes = (time.process_time() - start) / 60
    rows = [
        ("requests", report.requests),
        ("ticks", f"{sum(report.ticks.values()):.0f}"),
        ("replica-hours", f"{report.replica_hours:.0f}"),
        ("busy share of them", f"{report.utilisation:.3f}"),
        ("replicas started", f"{report.starts:g}"),
        ("died, taken away", f"{report.failures:g}, {report.removals:g}"),
        (
            "played again, refused, lost",
            f"{report.replayed:g}, {report.refused:g}, {report.lost:g}",
        ),
        ("mean, p50, p95, p99 s; ≤3x", ", ".join(latencies(report))),
        ("minutes of one core to simulate it", f"{minutes:.1f}"),
    ]
    table(f"A day, mix C, 50 to {most} replicas that die and are taken away", "what, figure", rows)


PARTS = {"routing": routing, "autoscaling": autoscaling, "trouble": trouble, "day": day}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--costs", default="benchmarks/assumed-costs.json", help="a cost table")
    parser.add_argument("--share", type=float, default=1.0, help="of the requests and hours")
    given = parser.parse_args(arguments)
    if unknown := set(given.parts) - PARTS.keys():
        parser.error(f"there is no part {min(unknown)!r}; the parts are {', '.join(PARTS)}")
    costs = load_costs(given.costs)
    for part in given.parts or PARTS:
        PARTS[part](costs, given.share)


if __name__ == "__main__":
    main()
