"""How fast the simulator is, and the scheduler's ``plan()`` in it.

    python -m benchmarks.simulator

First a workload of 100,000 requests on 64 replicas, then ``plan()`` with ever more rows waiting.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from statistics import median

import numpy as np

from chairlift.scheduling.costs import Costs
from chairlift.scheduling.names import DEFAULT_POLICY, POLICY_NAMES
from chairlift.scheduling.plan import TickResult
from chairlift.simulate.arrivals import create_source
from chairlift.simulate.contestant import create_scheduler
from chairlift.simulate.names import ROUTER_NAMES
from chairlift.simulate.replica import create_rows
from chairlift.simulate.report import create_report
from chairlift.simulate.router import create_router
from chairlift.simulate.simulation import simulate
from chairlift.simulate.workload import MIXES, capacity, draw_jobs
from chairlift.tables import load_costs

MIX = MIXES["qwen"]
TABLE = {
    "shapes": [
        {
            "width": 512,
            "height": 512,
            "step_seconds": {"1": 0.17, "2": 0.18, "3": 0.19, "4": 0.24, "8": 0.42, "16": 0.83},
            "encode_seconds": {"1": 0.02},
            "decode_seconds": {"1": 0.04},
        },
        {
            "width": 1024,
            "height": 1024,
            "step_seconds": {"1": 0.24, "2": 0.47, "3": 0.71},
            "encode_seconds": {"1": 0.02},
            "decode_seconds": {"1": 0.16},
        },
    ]
}
"""Of no machine; what Qwen-Image is like."""


def run(costs: Costs, policy: str, requests: int, replicas: int, router: str, load: float) -> None:
    """Simulate, and print how long it took."""
    rate = load * replicas * capacity(costs, MIX)
    source = create_source("poisson", MIX, rate, requests, seed=1)
    schedulers = [create_scheduler(policy, costs) for _ in range(replicas)]
    start = time.perf_counter()
    simulation = simulate(source, schedulers, create_router(router, 1), costs)
    seconds = time.perf_counter() - start
    report = create_report(policy, load, simulation)
    ticks = sum(report.ticks.values())
    print(
        f"{requests} requests on {replicas} replicas, {policy}, {router}, load {load:g}: "
        f"{seconds:.1f} s, {ticks:.0f} ticks, {1e6 * seconds / ticks:.1f} µs a tick; "
        f"mean latency {report.mean_s:.1f} s, p99 {report.p99_s:.1f} s",
        flush=True,
    )


def plan_seconds(costs: Costs, policy: str, waiting: int) -> tuple[float, float]:
    """Median seconds of ``plan()`` and of ``update()`` with so many rows waiting."""
    arrivals = [0.01 * number for number in range(waiting)]
    jobs = draw_jobs(MIX, arrivals, np.random.default_rng(1))
    scheduler = create_scheduler(policy, costs)
    for number, job in enumerate(jobs):
        scheduler.submit(create_rows(job, str(number)))
    plans, updates = [], []
    now = jobs[-1].arrival_s
    for _ in range(50):
        start = time.perf_counter()
        plan = scheduler.plan(now)
        planned = time.perf_counter()
        scheduler.update(TickResult(plan=plan, seconds=0.2))
        updates.append(time.perf_counter() - planned)
        plans.append(planned - start)
        now += 0.2
    return median(plans), median(updates)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--costs", help="a cost table; left out, one of no machine")
    parser.add_argument("--policy", nargs="+", default=[DEFAULT_POLICY])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--replicas", type=int, default=64)
    parser.add_argument("--router", choices=ROUTER_NAMES, default="least-requests")
    parser.add_argument("--load", type=float, default=0.9)
    parser.add_argument("--waiting", type=int, nargs="*", default=[10, 100, 1000, 10_000, 100_000])
    given = parser.parse_args(arguments)
    costs = load_costs(given.costs) if given.costs else Costs(TABLE)
    for policy in given.policy:
        run(costs, policy, given.requests, given.replicas, given.router, given.load)
    print("\nplan(), ms (and update()):\n")
    print("| policy | " + " | ".join(f"{count} waiting" for count in given.waiting) + " |")
    print("| --- |" + " --- |" * len(given.waiting))
    for policy in POLICY_NAMES:
        times = [plan_seconds(costs, policy, count) for count in given.waiting]
        cells = [f"{1000 * plan:.3f} ({1000 * update:.3f})" for plan, update in times]
        print(f"| {policy} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
