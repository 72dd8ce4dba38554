"""The lift: what rides and who waits, told to everybody who looks on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice

import msgspec

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
    """Tells its readers what the engine does. A report is written once for all who may end the same
    requests: without keys that is everybody.

    Args:
        client: The engine.
    """

    def __init__(self, client: Engine) -> None:
        self._client = client
        self._readers: dict[Outbox, str] = {}
        """With their owners."""
        self._ticks: list[Tick] = []
        self._told = 0.0
        self._stop: Callable[[], None] = lambda: None
        self._telling: asyncio.TimerHandle | None = None

    def join(self, reader: Outbox, owner: str = "") -> Callable[[], None]:
        """Tell a reader how things stand, and all that happens from now on, until the engine is
        closed; returns what ends that. A reader who is slow misses some.

        Args:
            reader: Where it is told.
            owner: Whose requests the reader may end; empty for everybody's.
        """
        if not self._readers:
            self._stop = self._client.listen(self._listen)
        self._readers[reader] = owner
        reader.put(self._written(self._report([]), owner), missable=True)
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
        report = self._report(self._ticks)
        self._ticks = []
        events = {owner: self._written(report, owner) for owner in set(self._readers.values())}
        for reader, owner in self._readers.items():
            reader.put(events[owner], missable=True)

    def _leave(self, reader: Outbox) -> None:
        self._readers.pop(reader, None)
        if not self._readers:
            self._stop()
            self._end_timer()
            self._ticks = []

    def _end_timer(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None

    def _report(self, ticks: list[Tick]) -> LiftReport:
        client = self._client
        now = asyncio.get_running_loop().time()
        waiting = (ride for ride in client.rides.values() if not ride.boarded.is_set())
        queue = [
            Queued(
                id=ride.request.id,
                images=ride.request.n,
                width=ride.request.width,
                height=ride.request.height,
                frames=ride.request.frames,
                eta_s=ride.eta_s(now),
            )
            for ride in islice(waiting, SHOWN_IN_QUEUE)
        ]
        return LiftReport(
            ticks=ticks,
            running=client.activity.running,
            waiting=client.activity.waiting,
            backlog_seconds=client.activity.backlog_seconds,
            queue=queue,
            own=None,
        )

    def _written(self, report: LiftReport, owner: str) -> bytes:
        """The report as this owner's event."""
        if not owner:
            return format_event(report)
        named = {rider.row.request_id for tick in report.ticks for rider in tick.riders}
        named |= {queued.id for queued in report.queue}
        rides = self._client.rides
        own = [id for id in named if id in rides and rides[id].request.owner == owner]
        return format_event(msgspec.structs.replace(report, own=sorted(own)))
