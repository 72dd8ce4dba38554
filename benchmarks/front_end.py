"""What the front end carries: HTTP, admission, the socket to the engine, and open streams.

    python -m benchmarks.front_end [--rounds 3]

The fake model makes pictures of 64x64 in no time, so that everything else is what is measured. The
load generator is a process of its own on the same cores. Three loads: as many requests as 32
callers can send; 200 requests a second; and the same while 1,000 readers follow the lift.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp

from benchmarks.machine import describe_machine, spread
from chairlift.server.process import running_server

READERS = 1_000
CALLERS = 32
SMALL = ("--width", "64", "--height", "64", "--steps", "1", "--num-warmups", "50")
RATE = ("--request-rate", "200", "--num-prompts", "3000")
FLOOD = ("--max-concurrency", str(CALLERS), "--num-prompts", "4000")


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one load."""

    throughput: float
    """Answers a second."""
    p50: float
    """Seconds from the arrival to the answer."""
    p99: float


async def load(url: str, *options: str) -> Figures:
    """Send requests from another process.

    Raises:
        RuntimeError: One has failed.
    """
    with TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = ("bench", "--base-url", url, *SMALL, *options, "--save-result", str(result))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "chairlift", *command, stdout=asyncio.subprocess.DEVNULL
        )
        if await process.wait():
            raise RuntimeError("a request has failed")
        summary = json.loads(result.read_text(encoding="utf-8"))["summary"]
    latency = summary["seconds"]["latency"]
    return Figures(summary["throughput"], latency["p50"], latency["p99"])


class Readers:
    """Connections that follow the lift, and how much each of them was sent."""

    def __init__(self, count: int) -> None:
        self.reports = [0] * count

    async def follow(self, session: aiohttp.ClientSession, number: int) -> None:
        """Read until cancelled."""
        async with session.get("/v1/lift") as answer:
            answer.raise_for_status()
            async for line in answer.content:
                self.reports[number] += line.startswith(b"data:")


async def load_beside_readers(url: str) -> tuple[Figures, Readers, float]:
    """The load, the readers, and for how many seconds these read."""
    readers = Readers(READERS)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                url,
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        )
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = [group.create_task(readers.follow(session, n)) for n in range(READERS)]
        while not all(readers.reports):
            await asyncio.sleep(0.05)
        start = time.monotonic()
        figures = await load(url, *RATE)
        seconds = time.monotonic() - start
        for task in tasks:
            task.cancel()
    return figures, readers, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(describe_machine())
    flood, rate, beside, reports = [], [], [], []
    for _ in range(rounds):
        with running_server("fake", "--max-queue", "1024") as url:
            flood.append(asyncio.run(load(url, *FLOOD)))
            rate.append(asyncio.run(load(url, *RATE)))
            figures, readers, seconds = asyncio.run(load_beside_readers(url))
            beside.append(figures)
            reports.append(min(readers.reports) / seconds)
    print(f"\n{CALLERS} callers: {spread([figures.throughput for figures in flood])} answers/s")
    print("\n| load | answers/s | p50 ms | p99 ms |\n| --- | --- | --- | --- |")
    for name, loads in (("alone", rate), (f"beside {READERS:,} readers", beside)):
        print(
            f"| 200 a second, {name} | {spread([figures.throughput for figures in loads])} "
            f"| {spread([1000 * figures.p50 for figures in loads])} "
            f"| {spread([1000 * figures.p99 for figures in loads])} |"
        )
    print(f"\nReports a second to the reader with the fewest: {spread(reports)}")


if __name__ == "__main__":
    main()
