"""Three routers on a real cluster of two replicas, and what the simulator says of the same.

    python -m benchmarks.routing

The model is the fake one, whose ticks sleep, so that two cores do. Three applications of two
replicas each run on one local Ray: they differ in how the front end chooses the replica. They take
turns on the very same Poisson arrivals of requests of very different length, at shares of what two
replicas can do. ``two-choices`` is Ray Serve's own router; between two replicas it takes the one
with fewer requests.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import ray
from ray import serve
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from benchmarks.batching import new_client
from benchmarks.machine import describe_machine, percentile
from chairlift.cluster.application import create_application
from chairlift.cluster.autoscaling import AutoscalingOptions
from chairlift.cluster.config import ClusterConfig
from chairlift.cluster.router import BacklogRouter
from chairlift.engine.worker_config import WorkerConfig
from chairlift.scheduling.costs import Costs
from chairlift.scheduling.routing import RoundRobin
from chairlift.simulate.contestant import create_scheduler
from chairlift.simulate.router import create_router
from chairlift.simulate.simulation import simulate
from chairlift.simulate.workload import Job, Kind, alone, draw_jobs

STEP_SECONDS, ROW_SECONDS = 0.0, 0.0075
"""What a tick sleeps, and for each of its rows."""
OVERHEAD_SECONDS = 0.0015
"""What the engine adds to a tick."""
REPLICAS = 2
MAX_BATCH_SIZE = 4
MIX = (Kind(0.5, 64, 5, 15), Kind(0.3, 96, 15, 30), Kind(0.2, 128, 30, 50))
SHAPES = {64: (64, 64), 96: (128, 32), 128: (32, 128)}
"""In place of the squares of the mix. Steps of one shape only share a tick; they cost the same, so
all have the same number of pixels."""
WARM_UP_SECONDS = 3.0
OBJECTIVES = (2.0, 3.0)
"""Times the time alone."""
BEST = "least-backlog"


class RoundRobinRouter(RequestRouter):  # type: ignore[misc]
    """One replica after the other."""

    def initialize_state(self, **settings: Any) -> None:
        self._turn = RoundRobin()

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        replicas = sorted(candidate_replicas, key=lambda replica: replica.replica_id.unique_id)
        return [[replicas[self._turn(len(replicas))]]]


ROUTERS: dict[str, Any] = {
    "round-robin": RoundRobinRouter,
    "two-choices": "ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter",
    "least-backlog": BacklogRouter,
}


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one request, in seconds."""

    seconds: float
    alone: float
    """By the cost table."""


Latencies = defaultdict[str, list[Latency]]
"""By router."""


def cost_table() -> Costs:
    """What ticks cost: the same for all sizes."""
    steps = {
        str(rows): STEP_SECONDS + ROW_SECONDS * rows + OVERHEAD_SECONDS
        for rows in range(1, MAX_BATCH_SIZE + 1)
    }
    shapes = [
        {"width": width, "height": height, "step_seconds": steps}
        for width, height in SHAPES.values()
    ]
    return Costs({"shapes": shapes})


def requests_a_second(costs: Costs) -> float:
    """What all replicas can do if every tick is full."""
    weights = sum(kind.weight for kind in MIX)
    steps = sum(kind.weight * (kind.least_steps + kind.most_steps) / 2 for kind in MIX) / weights
    tick = costs.step(costs.shapes[0]).seconds(MAX_BATCH_SIZE)
    return REPLICAS * MAX_BATCH_SIZE / (steps * tick)


def draw(rate: float, seconds: float, seed: int) -> list[Job]:
    """Poisson arrivals of the mix."""
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(1 / rate, max(1, round(rate * seconds))))
    jobs = draw_jobs(MIX, arrivals.tolist(), random)
    sizes = [SHAPES[job.width] for job in jobs]
    return [
        replace(job, width=width, height=height)
        for job, (width, height) in zip(jobs, sizes, strict=True)
    ]


def simulated(costs: Costs, router: str, jobs: Sequence[Job], seed: int) -> list[Latency]:
    """What the simulator says; it knows nothing of networks and of news that is old."""
    schedulers = [create_scheduler("balanced", costs, MAX_BATCH_SIZE) for _ in range(REPLICAS)]
    simulation = simulate(jobs, schedulers, create_router(router, seed), costs)
    return [Latency(one.latency_s, one.alone_s) for one in simulation.outcomes]


async def measured(costs: Costs, url: str, jobs: Sequence[Job]) -> list[Latency]:
    """What callers see who send these jobs when they arrive."""
    async with new_client(url) as http:
        start = time.perf_counter()

        async def send(number: int, job: Job) -> Latency:
            await asyncio.sleep(start + job.arrival_s - time.perf_counter())
            answer = await http.post("v1/images/generations", json=body(number, job))
            answer.raise_for_status()
            return Latency(time.perf_counter() - start - job.arrival_s, alone(costs, job))

        return await asyncio.gather(*(send(number, job) for number, job in enumerate(jobs)))


def body(number: int, job: Job) -> dict[str, Any]:
    """Without guidance a row is one entry of a tick."""
    return {
        "prompt": f"boat no. {number}",
        "seed": number,
        "size": f"{job.width}x{job.height}",
        "num_inference_steps": job.steps,
        "sampler": "euler",
        "guidance_scale": 1.0,
    }


@contextmanager
def running_applications() -> Iterator[dict[str, str]]:
    """A local Ray with one application for each router.

    Yields:
        Their URLs, by the routers' names.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = ClusterConfig(
        worker=WorkerConfig(
            model=f"fake:{STEP_SECONDS}:{ROW_SECONDS}", max_batch_size=MAX_BATCH_SIZE
        ),
        autoscaling=AutoscalingOptions(min_replicas=REPLICAS, max_replicas=REPLICAS),
        gpus=0,
        cpus=0.5,
        max_queue=1000,
    )
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with TemporaryDirectory(prefix="ray-") as temporary:
        ray.init(
            num_cpus=2 * len(ROUTERS),
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=temporary,
        )
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            for name, router in ROUTERS.items():
                serve.run(create_application(config, router), name=name, route_prefix=f"/{name}")
            yield {name: f"http://127.0.0.1:{port}/{name}/" for name in ROUTERS}
        finally:
            serve.shutdown()
            ray.shutdown()


def cells(latencies: Sequence[Latency], best: Sequence[Latency]) -> list[str]:
    """Of one line of the table; ``best`` are those that it is compared with."""
    own, others = ([one.seconds for one in each] for each in (latencies, best))
    shares = [mean(one.seconds <= times * one.alone for one in latencies) for times in OBJECTIVES]
    return [
        f"{len(own)}",
        f"{mean(own):.2f}",
        *(f"{percentile(own, share):.2f}" for share in (0.5, 0.95, 0.99)),
        *(f"{share:.3f}" for share in shares),
        f"{mean(own) / mean(others):.2f}",
        f"{percentile(own, 0.99) / percentile(others, 0.99):.2f}",
    ]


def print_table(load: float, where: str, latencies: Latencies) -> None:
    for name in ROUTERS:
        own = latencies[name]
        print(f"| {load:g} | {where} | {name} | {' | '.join(cells(own, latencies[BEST]))} |")


def turns(names: Iterable[str], number: int) -> list[str]:
    """Another one begins each time."""
    every = list(names)
    first = number % len(every)
    return every[first:] + every[:first]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--loads", type=float, nargs="+", default=[0.7, 0.9])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=36.0, help="of arrivals, a turn")
    options = parser.parse_args(arguments)
    costs = cost_table()
    most = requests_a_second(costs)
    really = {load: Latencies(list) for load in options.loads}
    virtually = {load: Latencies(list) for load in options.loads}
    with running_applications() as urls:
        for url in urls.values():
            asyncio.run(measured(costs, url, draw(most, WARM_UP_SECONDS, seed=0)))
        psutil.cpu_percent()
        for number in range(options.rounds):
            for place, load in enumerate(options.loads):
                seed = 1 + number * len(options.loads) + place
                jobs = draw(load * most, options.seconds, seed)
                for name in turns(ROUTERS, seed):
                    really[load][name] += asyncio.run(measured(costs, urls[name], jobs))
                    virtually[load][name] += simulated(costs, name, jobs, seed)
        busy = psutil.cpu_percent()
    print(f"{describe_machine()}; processors busy: {busy:.0f} %")
    print(f"{options.rounds} rounds of {options.seconds:g} s; capacity {most:.1f} requests/s\n")
    within = ", ".join(f"≤{times:g}x" for times in OBJECTIVES)
    head = f"load, where, router, requests, mean s, p50 s, p95 s, p99 s, {within}, mean÷, p99÷"
    columns = head.split(", ")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for load in options.loads:
        print_table(load, "really", really[load])
        print_table(load, "simulator", virtually[load])


if __name__ == "__main__":
    main()
