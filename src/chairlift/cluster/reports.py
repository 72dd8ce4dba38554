"""What front ends are told of a replica: of all streams that one has open there, the oldest carries
the reports, so that a busy replica isn't told about once for each of its requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from chairlift.cluster.messages import FromReplica, Report
from chairlift.engine.messages import Activity, Tick

REPORT_SECONDS = 0.25
"""Between two reports to the same front end."""

Stream = asyncio.Queue[FromReplica | None]


@dataclass(slots=True)
class _FrontEnd:
    streams: list[Stream] = field(default_factory=list)
    """The oldest first."""
    ticks: list[Tick] = field(default_factory=list)
    """Not yet told."""
    eta_s: dict[str, float] = field(default_factory=dict)
    """Not yet told."""
    told: float = 0.0


class Reports:
    """Those of one replica.

    Args:
        replica: Its name.
    """

    def __init__(self, replica: str) -> None:
        self._replica = replica
        self._front_ends: dict[str, _FrontEnd] = {}
        self._last = Activity(ticks=[], running=0, waiting=0, backlog_seconds=0.0)

    @contextmanager
    def on(self, stream: Stream, front_end: str) -> Iterator[None]:
        """Meanwhile ``stream`` may carry reports to a front end; it gets one at once."""
        there = self._front_ends.setdefault(front_end, _FrontEnd())
        there.streams.append(stream)
        self.send(stream, front_end)
        try:
            yield
        finally:
            there.streams.remove(stream)
            if not there.streams:
                del self._front_ends[front_end]

    def add(self, activity: Activity) -> None:
        """The engine has reported."""
        self._last = msgspec.structs.replace(activity, ticks=[], eta_s={})
        now = asyncio.get_running_loop().time()
        for name, there in self._front_ends.items():
            there.ticks += activity.ticks
            there.eta_s |= activity.eta_s
            if now - there.told >= REPORT_SECONDS:
                self.send(there.streams[0], name)

    def send(self, stream: Stream, front_end: str) -> None:
        """Tell a front end what it hasn't been told."""
        there = self._front_ends[front_end]
        activity = msgspec.structs.replace(self._last, ticks=there.ticks, eta_s=there.eta_s)
        stream.put_nowait(Report(replica=self._replica, activity=activity))
        there.ticks, there.eta_s = [], {}
        there.told = asyncio.get_running_loop().time()
