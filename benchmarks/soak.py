"""What a server keeps of ten thousand requests that have ended: nothing.

    python -m benchmarks.soak --requests 10000

Small requests to the fake model, of every kind: answered at once, streamed, as jobs of which the
old ones are removed, cancelled, wrong, and from callers who go away. After a warm-up, and again and
again until the end, the server is left alone for a moment, and its processes are looked at; in the
end it is left alone until all jobs are old. The exit status is 1 if the resident memory of a
process has grown by 5 % since the warm-up, if one has more open files or threads, if the data
folder still has pictures, or if a request was answered otherwise than it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.chaos.server import Server
from benchmarks.machine import describe_machine
from benchmarks.traffic import Traffic, until_idle

MOST_GROWTH = 0.05
KEEP_SECONDS = 20.0
"""Of finished jobs."""
REST_SECONDS = 2.0
"""Before a look: connections close."""
LAST_REST_SECONDS = KEEP_SECONDS + 65.0
"""Before the last one: the server looks for old jobs once a minute."""
OTHER_FILES = 8
"""The most in the data folder beside pictures: the database with its journal, the lock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What one process has."""

    memory: int
    """Bytes that are resident."""
    files: int
    threads: int

    @classmethod
    def of(cls, process: psutil.Process) -> Usage:
        """At this moment."""
        return cls(
            memory=process.memory_info().rss,
            files=process.num_fds(),
            threads=process.num_threads(),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What the server has after so many requests."""

    requests: int
    seconds: float
    """Since the first request."""
    front_end: Usage
    worker: Usage
    data_files: int


async def soak(server: Server, options: argparse.Namespace) -> tuple[list[Look], Counter[str]]:
    """Send everything: what was seen, and the answers that shouldn't have come."""
    await server.start()
    try:
        looks, surprises = await send_all(server, options)
        if server.stop():
            raise RuntimeError(f"the server has ended with an error:\n{server.said[-2000:]}")
    finally:
        server.end_processes()
    return looks, surprises


async def send_all(server: Server, options: argparse.Namespace) -> tuple[list[Look], Counter[str]]:
    """Send the requests, and look at the server now and then."""
    worker, start = await server.worker(), time.monotonic()
    looks, surprises = list[Look](), Counter[str]()
    total = options.warm_up + options.requests

    async def look(rest: float, sent: int) -> None:
        await asyncio.sleep(rest)
        looks.append(
            Look(
                requests=sent,
                seconds=time.monotonic() - start,
                front_end=Usage.of(server.front_end),
                worker=Usage.of(worker),
                # Old jobs may be removed at this moment, which walk doesn't mind.
                data_files=sum(len(files) for _, _, files in os.walk(server.data)),
            )
        )
        print(".", end="", flush=True)

    sent = 0
    while sent < total:
        until = min(total, sent + options.every if sent else options.warm_up)
        traffic = Traffic(server.url)
        await traffic.send(range(sent, until), options.callers)
        await traffic.close()
        surprises += traffic.surprises
        sent = until
        await until_idle(server.url)
        await look(REST_SECONDS, sent)
    await look(LAST_REST_SECONDS, sent)
    return looks, surprises


def table(looks: Sequence[Look]) -> Iterator[str]:
    """One line for each look, in Markdown."""
    names = ("resident, MiB", "open files", "threads")
    columns = [f"{process}: {name}" for process in ("front end", "worker") for name in names]
    yield f"| requests | after, s | {' | '.join(columns)} | files of data |"
    yield "| --- |" + " --- |" * (len(columns) + 2)
    for look in looks:
        cells = [
            f"{usage.memory / 2**20:.1f} | {usage.files} | {usage.threads}"
            for usage in (look.front_end, look.worker)
        ]
        yield (
            f"| {look.requests:,} | {look.seconds:.0f} | {' | '.join(cells)} | {look.data_files} |"
        )


def judge(looks: Sequence[Look], surprises: Counter[str]) -> Iterator[tuple[bool, str]]:
    """Whether each thing that is promised was kept, and in words."""
    first, last, rested = looks[0], looks[-2], looks[-1]
    for name, before, after in (
        ("front end", first.front_end, last.front_end),
        ("worker", first.worker, last.worker),
    ):
        growth = after.memory / before.memory - 1
        yield growth < MOST_GROWTH, f"{name}: memory has grown by {growth:.1%}, less than 5 %"
        yield after.files <= before.files, f"{name}: {before.files} open files, then {after.files}"
        yield (
            after.threads <= before.threads,
            f"{name}: {before.threads} threads, then {after.threads}",
        )
    left = rested.data_files
    yield left <= OTHER_FILES, f"{left} files when all jobs are old, at most {OTHER_FILES}"
    yield not surprises, f"answers that shouldn't have come: {dict(surprises) or 'none'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--warm-up", type=int, default=2_000, help="requests before the first look")
    parser.add_argument("--every", type=int, default=2_000, help="requests from look to look")
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--model", default="fake", help="as for chairlift serve")
    options = parser.parse_args(arguments)
    print(f"{options.requests} requests to {options.model} on {describe_machine()}", flush=True)
    bounds = ["--keep-days", f"{KEEP_SECONDS / 86_400:.9f}", "--max-queue", "1000"]
    with TemporaryDirectory(prefix="soak-") as folder:
        server = Server(Path(folder), options.model, bounds)
        looks, surprises = asyncio.run(soak(server, options))
    print("\n", *table(looks), "", sep="\n")
    verdicts = list(judge(looks, surprises))
    for is_kept, words in verdicts:
        print(f"{'kept' if is_kept else 'MISSED'}: {words}")
    return 0 if all(is_kept for is_kept, _ in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
