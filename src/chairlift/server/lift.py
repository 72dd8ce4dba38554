"""The lift: what rides and who waits, told to everybody who looks on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice

from chairlift.engine.messages import Activity, Tick
from chairlift.server.engine import Engine
from chairlift.server.events import Outbox, format_event
from chairlift.server.schema import LiftReport, Queued

SHOWN_IN_QUEUE = 50
"""The most waiting requests that a report names."""
REPORT_SECONDS = 0.1
"""The least time between two reports."""
SECONDS_PER_READER = 0.001
"""A thousand readers are told once a second: telling takes time that callers want."""


class Lift:
    """Tells its readers what the engine does. A report is written once, for all of them.

    Args:
        client: The engine.
    """

    def __init__(self, client: Engine) -> None:
        self._client = client
        self._readers: set[Outbox] = set()
        self._ticks: list[Tick] = []
        self._told = 0.0
        self._stop: Callable[[], None] = lambda: None
        self._telling: asyncio.TimerHandle | None = None

    def join(self, reader: Outbox) -> Callable[[], None]:
        """Tell a reader how things stand, and all that happens from now on, until the engine is
        closed; returns what ends that. A reader who is slow misses some.
        """
        if not self._readers:
            self._stop = self._client.listen(self._listen)
        self._readers.add(reader)
        reader.put(self._report([]), missable=True)
        if self._client.is_closed:
            reader.close()
        return lambda: self._leave(reader)

    def _listen(self, activity: Activity) -> None:
        self._ticks += activity.ticks
        if self._client.is_closed:
            self._tell()
            for reader in self._readers:
                reader.close()
        elif self._telling is None:
            loop = asyncio.get_running_loop()
            pause = max(REPORT_SECONDS, SECONDS_PER_READER * len(self._readers))
            self._telling = loop.call_at(max(loop.time(), self._told + pause), self._tell)

    def _tell(self) -> None:
        self._end_timer()
        self._told = asyncio.get_running_loop().time()
        event = self._report(self._ticks)
        self._ticks = []
        for reader in self._readers:
            reader.put(event, missable=True)

    def _leave(self, reader: Outbox) -> None:
        self._readers.discard(reader)
        if not self._readers:
            self._stop()
            self._end_timer()
            self._ticks = []

    def _end_timer(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None

    def _report(self, ticks: list[Tick]) -> bytes:
        client = self._client
        now = asyncio.get_running_loop().time()
        waiting = (ride for ride in client.rides.values() if not ride.boarded.is_set())
        queue = [
            Queued(
                id=ride.request.id,
                images=ride.request.n,
                width=ride.request.width,
                height=ride.request.height,
                eta_s=ride.eta_s(now),
            )
            for ride in islice(waiting, SHOWN_IN_QUEUE)
        ]
        return format_event(
            LiftReport(
                ticks=ticks,
                running=client.activity.running,
                waiting=client.activity.waiting,
                backlog_seconds=client.activity.backlog_seconds,
                queue=queue,
            )
        )
