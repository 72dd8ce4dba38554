"""Replicas that come and go.

The life of a replica: it starts, takes requests, and ends. It may end at once (it dies). Or it
takes no more requests, and ends when what is aboard is done (the autoscaler wants fewer); if it is
a spot machine that is taken away, at the latest when its notice is over, whatever is aboard then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Protocol

from chairlift.simulate.board import Board
from chairlift.simulate.events import Events
from chairlift.simulate.replica import BatchStatistics, Entry, Replica
from chairlift.simulate.scenario import Scenario

HOUR = 3600.0


class Owner(Protocol):
    """Whose the jobs are."""

    def opened(self, now: float) -> None:
        """There is a replica more that takes requests."""

    def lost(self, entries: Sequence[Entry], now: float) -> None:
        """A replica has gone with these aboard."""


@dataclass(slots=True)
class History:
    """What happened to a fleet."""

    starts: int = 0
    """Replicas that were started, those of the beginning not among them."""
    failures: int = 0
    """Replicas that died."""
    removals: int = 0
    """Replicas that were given notice."""
    statistics: list[BatchStatistics] = field(default_factory=list)
    """Of each replica, in the order in which they went."""


class Fleet:
    """As many replicas as there should be; see the module.

    Args:
        scenario: How they come and go.
        create: Makes a replica of a number.
        events: Where their lives are put.
        owner: Is told what concerns the jobs.
        seed: Of all that is drawn.
    """

    def __init__(
        self,
        scenario: Scenario,
        create: Callable[[int], Replica],
        events: Events,
        owner: Owner,
        seed: int = 0,
    ) -> None:
        self.board = Board()
        self.history = History()
        self.target = 0
        """How many there should be."""
        self._scenario = scenario
        self._create = create
        self._events = events
        self._owner = owner
        self._random = Random(seed)
        self._count = 0
        self._present: dict[int, float] = {}
        """Since when, of each that has begun to start and hasn't gone."""
        self._starting: list[int] = []
        self._draining: dict[int, Replica] = {}

    def begin(self, now: float) -> None:
        """The first replicas are there at once."""
        self.target = self._scenario.replicas
        for _ in range(self.target):
            self._ready(self._announce(now), now)

    def scale(self, target: int, now: float) -> None:
        """There should be so many."""
        self.target = target
        self._settle(now)

    def turned(self, replica: Replica, now: float) -> None:
        """A replica has done something; one that drains goes when nothing is aboard."""
        self.board.turned(replica)
        if replica.number in self._draining and not replica.requests:
            self._end(self._draining.pop(replica.number), now)

    def close(self, now: float) -> None:
        """Count those that are here."""
        running = [self.board[seat] for seat in self.board.seats]
        for replica in (*running, *self._draining.values()):
            self._end(replica, now)
        for number in self._starting:
            self._count_off(number, now)

    def _settle(self, now: float) -> None:
        """Start or stop as many as are missing or too many."""
        there = len(self._starting) + len(self.board)
        for _ in range(self.target - there):
            self.history.starts += 1
            number = self._announce(now)
            self._events.at(now + self._scenario.start_up_s, partial(self._ready, number))
        for _ in range(there - self.target):
            if self._starting:
                self._count_off(self._starting.pop(), now)
            else:
                self._drain(self.board[int(self.board.backlogs(now).argmin())], now)

    def _announce(self, now: float) -> int:
        number = self._count
        self._count += 1
        self._present[number] = now
        self._starting.append(number)
        return number

    def _ready(self, number: int, now: float) -> None:
        if number not in self._starting:
            return  # The autoscaler has changed its mind.
        self._starting.remove(number)
        replica = self._create(number)
        self.board.add(replica)
        for hours, action in (
            (self._scenario.failure_hours, self._fail),
            (self._scenario.removal_hours, self._notify),
        ):
            if hours is not None:
                at = now + self._random.expovariate(1 / (hours * HOUR))
                self._events.at(at, partial(action, replica))
        self._owner.opened(now)

    def _fail(self, replica: Replica, now: float) -> None:
        if replica.number not in self._present:
            return
        self.history.failures += 1
        self._take_away(replica, now)

    def _notify(self, replica: Replica, now: float) -> None:
        if replica not in self.board:
            return
        self.history.removals += 1
        self._events.at(now + self._scenario.notice_s, partial(self._remove, replica))
        self._drain(replica, now)
        self._settle(now)

    def _remove(self, replica: Replica, now: float) -> None:
        if replica.number in self._present:
            self._take_away(replica, now)

    def _take_away(self, replica: Replica, now: float) -> None:
        """A replica ends, whatever is aboard."""
        if replica in self.board:
            self.board.remove(replica)
        self._draining.pop(replica.number, None)
        entries = replica.abandon(now)
        self._end(replica, now)
        self._settle(now)
        self._owner.lost(entries, now)

    def _drain(self, replica: Replica, now: float) -> None:
        """A replica takes no more requests, and goes when it has none."""
        self.board.remove(replica)
        if replica.requests:
            self._draining[replica.number] = replica
        else:
            self._end(replica, now)

    def _end(self, replica: Replica, now: float) -> None:
        present = now - self._present.pop(replica.number)
        self.history.statistics.append(replica.statistics(present))

    def _count_off(self, number: int, now: float) -> None:
        """One that had not begun to take requests."""
        self.history.statistics.append(BatchStatistics({}, 0.0, now - self._present.pop(number)))
