"""What becomes of a server to which five times as much is sent as it can do.

    python -m benchmarks.overload                    # the fake model
    python -m benchmarks.overload --model bundled --max-queue 16 --clients 16 --steps 20

A real server's capacity is measured by a closed loop of as many callers as its queue has room for.
Then an open loop sends five times that, whatever is answered; then its capacity is measured again.
The exit status is 1 if it served less in overload than 0.95 of what it can (the mean of before and
after), answered anything but a picture or a 429 that says when to come again, or let somebody whom
it had accepted wait longer than a full queue takes.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import psutil

from benchmarks.chaos.server import Server
from benchmarks.machine import describe_machine, percentile

WARM_UP_SECONDS = 4.0
"""At the beginning of each phase, of which nothing is counted: the queue fills."""
HEALTH_SECONDS = 0.1
"""Between two looks at the server's health."""
LEAST_SHARE = 0.95
"""Of its capacity that a server must serve in overload."""
LEAST_IN_TIME = 0.98
"""Of what was to be sent that must have been sent, or else the callers were too slow."""
RETRY_AFTER = range(1, 121)
"""Seconds that a refusal may name."""
SLACK = 1.5
"""How many times as long as a full queue takes, those who are accepted may wait."""
SLACK_SECONDS = 1.0
"""On top of that."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One, and when it came, on the clock of ``time.monotonic``."""

    sent: float
    ended: float
    status: int
    """Of HTTP; 0 is a connection that broke."""
    retry_after: int | None = None

    @property
    def seconds(self) -> float:
        return self.ended - self.sent

    @property
    def is_served(self) -> bool:
        return self.status == 200

    @property
    def is_refused(self) -> bool:
        """Properly, with a time at which to come again."""
        return self.status == 429 and self.retry_after in RETRY_AFTER


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """What was answered between two moments."""

    name: str
    start: float
    end: float
    due: int
    """Requests that were to be sent; 0 in a closed loop."""
    sent: int
    answers: Sequence[Answer]
    """Also those who were sent before ``start``, if they ended afterwards."""
    health: Sequence[float]
    """Seconds that ``/health`` took."""
    front_end: float
    """CPU seconds of the front end, by the second."""

    def rate(self, answers: Sequence[Answer]) -> float:
        """So many a second."""
        return len(answers) / (self.end - self.start)

    @property
    def offered(self) -> float:
        """Requests a second."""
        return self.sent / (self.end - self.start)

    @property
    def served(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.is_served]

    @property
    def refused(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.is_refused]

    @property
    def wrong(self) -> Counter[int]:
        """All others, by their status."""
        others = (a for a in self.answers if not a.is_served and not a.is_refused)
        return Counter(answer.status for answer in others)


class Callers:
    """Send requests over connections that are kept.

    Args:
        session: Theirs.
        steps: Of a picture on average; they take turns from half to one and a half times as many,
            or else all of a batch would be served at one moment.
    """

    def __init__(self, session: aiohttp.ClientSession, steps: int) -> None:
        self.due: list[float] = []
        """When requests of an open loop were to be sent."""
        self.sent: list[float] = []
        self.answers: list[Answer] = []
        self._session = session
        self._steps = steps
        self._numbers = count()

    async def send(self) -> None:
        """Send one, and wait for its answer."""
        number = next(self._numbers)
        steps = max(1, self._steps // 2 + number % (self._steps + 1))
        body = {"prompt": f"a boat, number {number}", "num_inference_steps": steps}
        sent = time.monotonic()
        self.sent.append(sent)
        status, retry_after = 0, None
        try:
            async with self._session.post("/v1/images/generations", json=body) as answer:
                await answer.read()
                status, header = answer.status, answer.headers.get("Retry-After", "")
                retry_after = int(header) if header.isdecimal() else None
        except (aiohttp.ClientError, OSError):
            pass
        self.answers.append(Answer(sent, time.monotonic(), status, retry_after))

    async def closed_loop(self, clients: int, until: float) -> None:
        """So many callers, each of whom sends again when it was answered."""

        async def caller() -> None:
            while time.monotonic() < until:
                await self.send()

        await asyncio.gather(*(caller() for _ in range(clients)))

    async def open_loop(self, rate: float, until: float) -> None:
        """Send at random moments, so many a second, and wait for all answers."""
        rng, due = random.Random(1), time.monotonic()
        async with asyncio.TaskGroup() as rides:
            while due < until:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                rides.create_task(self.send())
                self.due.append(due)
                due += rng.expovariate(rate)


async def watch_health(session: aiohttp.ClientSession, found: list[Answer]) -> None:
    """Look at the server's health again and again."""
    while True:
        sent = time.monotonic()
        async with session.get("/health") as answer:
            await answer.read()
        found.append(Answer(sent, time.monotonic(), answer.status))
        await asyncio.sleep(HEALTH_SECONDS)


def cpu_seconds(process: psutil.Process) -> float:
    """That a process has taken."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def measure(
    name: str,
    server: Server,
    options: argparse.Namespace,
    load: Callable[[Callers, float], Awaitable[None]],
) -> Phase:
    """Put a load on the server and count what it answers.

    Args:
        name: Of the phase.
        server: It, ready.
        options: Of the command line.
        load: Sends until a moment, and waits for the answers.
    """
    connections = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(server.url, connector=connections) as session:
        callers, health = Callers(session, options.steps), list[Answer]()
        watching = asyncio.create_task(watch_health(session, health))
        start = time.monotonic() + WARM_UP_SECONDS
        end = start + options.seconds
        loading = asyncio.ensure_future(load(callers, end))
        await asyncio.sleep(start - time.monotonic())
        cpu = cpu_seconds(server.front_end)
        await asyncio.sleep(end - time.monotonic())
        cpu = cpu_seconds(server.front_end) - cpu
        watching.cancel()
        await loading
    return Phase(
        name=name,
        start=start,
        end=end,
        due=sum(start <= due < end for due in callers.due),
        sent=sum(start <= sent < end for sent in callers.sent),
        answers=[answer for answer in callers.answers if start <= answer.ended < end],
        health=[look.seconds for look in health if start <= look.sent and look.status == 200],
        front_end=cpu / options.seconds,
    )


async def run(server: Server, options: argparse.Namespace) -> list[Phase]:
    """The three phases."""
    await server.start()
    try:

        def closed(callers: Callers, until: float) -> Awaitable[None]:
            return callers.closed_loop(options.clients, until)

        before = await measure("capacity", server, options, closed)
        rate = options.times * before.rate(before.served)
        overload = await measure(
            "overload", server, options, lambda callers, until: callers.open_loop(rate, until)
        )
        after = await measure("capacity again", server, options, closed)
        if server.stop():
            raise RuntimeError(f"the server has ended with an error:\n{server.said[-2000:]}")
    finally:
        server.end_processes()
    return [before, overload, after]


def table(phases: Sequence[Phase]) -> Iterator[str]:
    """One column for each phase, in Markdown."""

    def row(name: str, cell: Callable[[Phase], str]) -> str:
        return f"| {name} | {' | '.join(map(cell, phases))} |"

    def spread(seconds: Sequence[float]) -> str:
        if not seconds:
            return "–"
        shares = [percentile(seconds, share) for share in (0.5, 0.99, 1.0)]
        return " / ".join(f"{1000 * value:.0f}" for value in shares)

    def retries(phase: Phase) -> str:
        named = sorted(answer.retry_after or 0 for answer in phase.refused)
        return f"{named[0]} to {named[-1]}" if named else "–"

    yield row("", lambda phase: phase.name)
    yield "| --- |" + " --- |" * len(phases)
    yield row("sent, requests/s", lambda phase: f"{phase.offered:.1f}")
    yield row("served, requests/s", lambda phase: f"{phase.rate(phase.served):.1f}")
    yield row("refused with 429, requests/s", lambda phase: f"{phase.rate(phase.refused):.1f}")
    yield row("other answers", lambda phase: str(phase.wrong.total()))
    yield row(
        "served: p50 / p99 / slowest, ms", lambda phase: spread([a.seconds for a in phase.served])
    )
    yield row(
        "refused: p50 / p99 / slowest, ms", lambda phase: spread([a.seconds for a in phase.refused])
    )
    yield row("`/health`: p50 / p99 / slowest, ms", lambda phase: spread(phase.health))
    yield row("`Retry-After`, s", retries)
    yield row("front end's CPU", lambda phase: f"{phase.front_end:.0%}")


def judge(phases: Sequence[Phase], options: argparse.Namespace) -> Iterator[tuple[bool, str]]:
    """Whether each thing that is promised was kept, and in words."""
    before, overload, after = phases
    capacity = (before.rate(before.served) + after.rate(after.served)) / 2
    share = overload.rate(overload.served) / capacity
    yield share >= LEAST_SHARE, f"served {share:.3f} of the capacity, at least {LEAST_SHARE}"
    for phase in phases:
        wrong = dict(phase.wrong)
        yield not wrong, f"{phase.name}: answers that are neither a picture nor a 429: {wrong}"
    in_time = overload.sent / overload.due
    yield in_time >= LEAST_IN_TIME, f"sent {in_time:.3f} of what was to be sent"
    bound = SLACK * options.max_queue / capacity + SLACK_SECONDS
    slowest = percentile([answer.seconds for answer in overload.served] or [math.inf], 0.99)
    yield slowest <= bound, f"p99 of the served {slowest:.2f} s, at most {bound:.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="fake:0.04", help="as for chairlift serve, or bundled")
    parser.add_argument("--steps", type=int, default=10, help="of a picture, on average")
    parser.add_argument("--times", type=float, default=5.0, help="as much as it can do is sent")
    parser.add_argument("--seconds", type=float, default=60.0, help="that each phase is measured")
    parser.add_argument("--max-queue", type=int, default=64)
    parser.add_argument("--clients", type=int, default=64, help="who measure the capacity")
    parser.add_argument("--max-batch-size", default="16", help="as for chairlift serve")
    options = parser.parse_args(arguments)
    print(f"{options.model}, {options.steps} steps, on {describe_machine()}\n", flush=True)
    bounds = ["--max-queue", str(options.max_queue), "--max-batch-size", options.max_batch_size]
    with TemporaryDirectory(prefix="overload-") as folder:
        phases = asyncio.run(run(Server(Path(folder), options.model, bounds), options))
    print(*table(phases), "", sep="\n")
    verdicts = list(judge(phases, options))
    for is_kept, words in verdicts:
        print(f"{'kept' if is_kept else 'MISSED'}: {words}")
    return 0 if all(is_kept for is_kept, _ in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
