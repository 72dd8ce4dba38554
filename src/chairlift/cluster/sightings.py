"""What a front end has last seen of each replica."""

from __future__ import annotations

import itertools

import msgspec

from chairlift.engine.messages import Activity

FORGET_SECONDS = 3.0
"""A replica that hasn't been heard of for so long has no request of this front end any more."""


class Sightings:
    """The last report of each replica."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, Activity]] = {}
        self._numbers: dict[str, int] = {}
        """Of those that are seen, as workers of one machine have them."""

    def add(self, replica: str, activity: Activity, now: float) -> Activity:
        """One more report; the same with the requests of all replicas that are still heard of, and
        the least backlog among them.

        Args:
            replica: Whose it is.
            activity: What it says.
            now: Seconds, on a clock that only goes forward.
        """
        self._seen[replica] = (now, activity)
        self._seen = {
            name: (when, last)
            for name, (when, last) in self._seen.items()
            if now - when < FORGET_SECONDS
        }
        self._numbers = {name: n for name, n in self._numbers.items() if name in self._seen}
        taken = set(self._numbers.values())
        free = next(number for number in itertools.count() if number not in taken)
        number = self._numbers.setdefault(replica, free)
        every = [last for _, last in self._seen.values()]
        return msgspec.structs.replace(
            activity,
            ticks=[msgspec.structs.replace(tick, worker=number) for tick in activity.ticks],
            running=sum(one.running for one in every),
            waiting=sum(one.waiting for one in every),
            backlog_seconds=min(one.backlog_seconds for one in every),
        )
