"""Requests of every kind leave nothing behind, but for the jobs on the disk.

``python -m benchmarks.soak`` looks at the memory too, for which it takes ten thousand of them.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.traffic import Traffic
from chairlift.engine.client import EngineClient
from chairlift.engine.ride import Ride
from tests.running import PATIENCE_SECONDS, EngineThread, wait_until

WARM_UP = range(60)
REQUESTS = range(60, 300)
POOL = "asyncio_"
"""What the threads of the event loop's pool are called, which has a bound of its own."""
REST_SECONDS = 0.5
"""Before what there is is counted: connections are closed meanwhile."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many there are."""

    rides: int
    ride_objects: int
    listeners: int
    tasks: int
    files: int
    threads: int
    worker_files: int
    worker_threads: int


def count(engine: EngineThread) -> Count:
    async def tasks() -> int:
        return len(asyncio.all_tasks())

    client, front_end = engine.client, psutil.Process()
    [worker] = map(psutil.Process, client.worker_pids)
    gc.collect()
    return Count(
        rides=len(client.rides),
        ride_objects=sum(type(thing) is Ride for thing in gc.get_objects()),
        listeners=len(client._listeners),
        tasks=engine.wait_for(tasks()),
        files=front_end.num_fds(),
        threads=sum(not thread.name.startswith(POOL) for thread in threading.enumerate()),
        worker_files=worker.num_fds(),
        worker_threads=worker.num_threads(),
    )


def send(http: httpx.Client, numbers: range) -> None:
    async def traffic() -> None:
        callers = Traffic(str(http.base_url))
        try:
            await callers.send(numbers, callers=8)
        finally:
            await callers.close()
        assert not callers.surprises

    asyncio.run(traffic())


def grown(before: Count, after: Count) -> dict[str, tuple[int, int]]:
    """What there is more of."""
    pairs = zip(asdict(before).items(), asdict(after).values(), strict=True)
    return {name: (old, new) for (name, old), new in pairs if new > old}


def test_what_has_ended_leaves_nothing_behind(
    engine: EngineThread, client: EngineClient, tmp_path: Path
) -> None:
    with engine.serve(folder=tmp_path) as http:
        send(http, WARM_UP)
        wait_until(lambda: not client.rides)
        time.sleep(REST_SECONDS)
        before = count(engine)
        send(http, REQUESTS)
        deadline = time.monotonic() + PATIENCE_SECONDS / 4
        # Connections are closed, and tasks that were cancelled end, a moment later.
        while grown(before, after := count(engine)) and time.monotonic() < deadline:
            time.sleep(REST_SECONDS)
        assert grown(before, after) == {}
        assert after.rides == after.ride_objects == 0
