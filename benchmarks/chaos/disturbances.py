"""What is done to the server, and when."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from dataclasses import dataclass
from enum import StrEnum

import psutil

from benchmarks.chaos.server import LOOK_SECONDS, Server

REPLACED_SECONDS = 60.0
"""How long it may take until a stopped worker is replaced."""


class Disturbance(StrEnum):
    """Each is one signal to one process."""

    WORKER_KILL = "worker SIGKILL"
    WORKER_STOP = "worker SIGSTOP"
    SERVER_KILL = "server SIGKILL"


@dataclass(frozen=True, slots=True)
class Moment:
    """When something is done."""

    seconds: float
    """After the first request."""
    disturbance: Disturbance


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which there was no server; on the clock of ``time.monotonic``."""

    start: float
    end: float


def draw_moments(
    counts: dict[Disturbance, int], seconds: float, rng: random.Random
) -> list[Moment]:
    """Each kind as often as it is counted, in random order: one at a random moment of each of as
    many equal parts of ``seconds``.
    """
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    rng.shuffle(kinds)
    part = seconds / max(1, len(kinds))
    return [Moment(part * (index + rng.random()), kind) for index, kind in enumerate(kinds)]


async def disturb(server: Server, moments: list[Moment]) -> list[Outage]:
    """Do all of it, one after the other; a moment waits for the end of the one before."""
    start, outages = time.monotonic(), []
    for moment in moments:
        await asyncio.sleep(max(0.0, start + moment.seconds - time.monotonic()))
        print(f"{time.monotonic() - start:6.1f} s  {moment.disturbance}", flush=True)
        match moment.disturbance:
            case Disturbance.WORKER_KILL:  # Ready or not.
                (await server.worker()).kill()
            case Disturbance.WORKER_STOP:
                await stop_worker(server)
            case Disturbance.SERVER_KILL:
                outages.append(await kill_server(server))
    await server.wait_until_ready()
    return outages


async def stop_worker(server: Server) -> None:
    """SIGSTOP a worker that is ready (one that loads may be silent), until it is replaced.

    Raises:
        RuntimeError: It isn't.
    """
    worker = await ready_worker(server)
    worker.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + REPLACED_SECONDS
    while not has_ended(worker):
        if time.monotonic() > deadline:
            worker.kill()
            raise RuntimeError(f"the stopped worker was not replaced in {REPLACED_SECONDS:g} s")
        await asyncio.sleep(LOOK_SECONDS)


async def ready_worker(server: Server) -> psutil.Process:
    """A worker that takes requests."""
    while True:
        worker = await server.worker()
        await server.wait_until_ready()
        if not has_ended(worker):  # Else it was the next one that became ready.
            return worker


def has_ended(process: psutil.Process) -> bool:
    """Whether a process has ended, be it a zombie."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def kill_server(server: Server) -> Outage:
    """SIGKILL the server itself, and start it again at once."""
    start = time.monotonic()
    server.kill()
    await server.start()
    return Outage(start, time.monotonic())
