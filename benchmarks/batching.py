"""``off`` against ``dynamic`` against ``continuous``, over HTTP, on the same arrivals.

    python -m benchmarks.batching

First what each mode serves at most (a closed loop of many clients), then Poisson arrivals at
shares of what ``off`` serves: an open loop, which doesn't slow down when the server does. In each
repetition the modes take turns on the very same arrivals; the table has the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Sequence
from statistics import mean, median
from typing import Any

import httpx

from benchmarks.machine import describe_machine, percentile
from chairlift.server.process import running_server

MODES: dict[str, tuple[str, ...]] = {
    "off": ("--batching", "off"),
    "dynamic": ("--batching", "dynamic", "--batch-delay-ms", "50"),
    "continuous": ("--batching", "continuous"),
}
KINDS = ("cabin", "tree", "boat", "tent", "lighthouse")


def body(number: int, steps: Sequence[int]) -> dict[str, Any]:
    """The request of this number."""
    rng = random.Random(number)
    return {
        "prompt": f"a red {rng.choice(KINDS)} on the left at night, a moon, {number} times",
        "num_inference_steps": rng.choice(steps),
        "seed": number,
    }


async def send(client: httpx.AsyncClient, number: int, steps: Sequence[int]) -> float:
    """Seconds from sending to receiving."""
    start = time.perf_counter()
    answer = await client.post("/v1/images/generations", json=body(number, steps))
    answer.raise_for_status()
    return time.perf_counter() - start


def new_client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    return httpx.AsyncClient(base_url=url, timeout=None, limits=limits)


async def saturate(url: str, clients: int, seconds: float, steps: Sequence[int]) -> float:
    """Pictures a second with this many clients that each wait for their answer."""
    numbers = iter(range(10**9))
    async with new_client(url) as client:

        async def one_client(until: float) -> int:
            count = 0
            while time.perf_counter() < until:
                await send(client, next(numbers), steps)
                count += time.perf_counter() < until
            return count

        await asyncio.gather(*(send(client, next(numbers), steps) for _ in range(clients)))
        until = time.perf_counter() + seconds
        counts = await asyncio.gather(*(one_client(until) for _ in range(clients)))
    return sum(counts) / seconds


async def open_loop(
    url: str, rate: float, count: int, seed: int, steps: Sequence[int]
) -> tuple[list[float], float]:
    """Latencies of ``count`` Poisson arrivals, and the pictures a second that came out."""
    rng = random.Random(seed)
    async with new_client(url) as client:
        await send(client, 0, steps)
        start = time.perf_counter()
        due, waiting = start, []
        for number in range(count):
            due += rng.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            waiting.append(asyncio.create_task(send(client, number, steps)))
        latencies = await asyncio.gather(*waiting)
        return list(latencies), count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.8, 1.2])
    parser.add_argument("--count", type=int, default=300, help="arrivals at each load")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs="+", default=[20], help="chosen at random")
    parser.add_argument("--clients", type=int, default=32, help="of the closed loop")
    parser.add_argument("--seconds", type=float, default=15, help="of the closed loop")
    arguments = parser.parse_args()
    steps = arguments.steps
    print(f"{describe_machine()}; steps {steps}\n")

    capacity: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(arguments.repetitions):
        for mode, options in MODES.items():
            with running_server(*options, "--max-queue", "10000") as url:
                served = saturate(url, arguments.clients, arguments.seconds, steps)
                capacity[mode].append(asyncio.run(served))
    print(f"| batching | pictures/s at most ({arguments.clients} clients) | beside off |")
    print("| --- | --- | --- |")
    most = {mode: median(served) for mode, served in capacity.items()}
    for mode, served in most.items():
        print(f"| {mode} | {served:.1f} | {served / most['off']:.2f} |", flush=True)

    print("\n| load | batching | pictures/s | mean s | p50 s | p95 s | p99 s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for load in arguments.loads:
        results: dict[str, list[tuple[float, ...]]] = {mode: [] for mode in MODES}
        for repetition in range(arguments.repetitions):
            for mode, options in MODES.items():
                with running_server(*options, "--max-queue", "10000") as url:
                    latencies, throughput = asyncio.run(
                        open_loop(url, load * most["off"], arguments.count, repetition, steps)
                    )
                shares = [percentile(latencies, share) for share in (0.5, 0.95, 0.99)]
                results[mode].append((throughput, mean(latencies), *shares))
        for mode, rows in results.items():
            throughput, *seconds = (median(column) for column in zip(*rows, strict=True))
            cells = " | ".join(f"{value:.2f}" for value in seconds)
            print(f"| {load:g} | {mode} | {throughput:.1f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
