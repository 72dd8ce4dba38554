"""What routers and the autoscaler see: the replicas that take requests, in columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chairlift.scheduling.costs import Shape
from chairlift.scheduling.roster import Numbers
from chairlift.simulate.replica import Replica

FIRST_SIZE = 64
NOBODY = 2**40
"""Requests in a seat without a replica: no router would choose it."""


class Board:
    """A seat for each replica that takes requests. A backlog runs down with the clock between two
    turns of its replica.
    """

    def __init__(self) -> None:
        self._replicas: list[Replica | None] = [None] * FIRST_SIZE
        self._seats: dict[int, int] = {}
        self._in_order: list[int] | None = None
        self._until = np.full(FIRST_SIZE, np.inf)
        self._requests = np.full(FIRST_SIZE, NOBODY)
        self._shapes: dict[Shape, NDArray[np.int64]] = {}
        self._stale: dict[int, Replica] = {}

    def __len__(self) -> int:
        return len(self._seats)

    @property
    def seats(self) -> list[int]:
        """Those that are taken, in order."""
        if self._in_order is None:
            self._in_order = sorted(self._seats.values())
        return self._in_order

    @property
    def requests(self) -> NDArray[np.int64]:
        """``(seats,)``, :data:`NOBODY` where there is no replica."""
        return self._requests

    def backlogs(self, now: float) -> Numbers:
        """``(seats,)``: predicted seconds of work, infinite where there is no replica."""
        for seat, replica in self._stale.items():
            self._until[seat] = replica.busy_until
        self._stale.clear()
        return np.maximum(self._until - now, 0.0)

    def having(self, shape: Shape) -> NDArray[np.bool_]:
        """``(seats,)``: where there are jobs of a shape."""
        return self._count(shape) > 0

    def __getitem__(self, seat: int) -> Replica:
        replica = self._replicas[seat]
        assert replica is not None
        return replica

    def __contains__(self, replica: Replica) -> bool:
        return replica.number in self._seats

    def add(self, replica: Replica) -> None:
        """It takes requests from now on; it must be idle."""
        if None not in self._replicas:
            self._grow()
        seat = self._replicas.index(None)
        self._replicas[seat] = replica
        self._seats[replica.number] = seat
        self._in_order = None
        self._until[seat], self._requests[seat] = 0.0, 0

    def remove(self, replica: Replica) -> None:
        """It takes no more."""
        seat = self._seats.pop(replica.number)
        self._stale.pop(seat, None)
        self._replicas[seat] = None
        self._in_order = None
        self._until[seat], self._requests[seat] = np.inf, NOBODY
        for counts in self._shapes.values():
            counts[seat] = 0

    def submitted(self, replica: Replica, shape: Shape) -> None:
        """A job has come to a replica."""
        self._change(replica, shape, 1)

    def finished(self, replica: Replica, shape: Shape) -> None:
        """A job of a replica is done."""
        self._change(replica, shape, -1)

    def turned(self, replica: Replica) -> None:
        """A replica has another backlog."""
        if (seat := self._seats.get(replica.number)) is not None:
            self._stale[seat] = replica

    def _change(self, replica: Replica, shape: Shape, by: int) -> None:
        if (seat := self._seats.get(replica.number)) is not None:
            self._requests[seat] += by
            self._count(shape)[seat] += by
            self._stale[seat] = replica

    def _count(self, shape: Shape) -> NDArray[np.int64]:
        if shape not in self._shapes:
            self._shapes[shape] = np.zeros(len(self._replicas), dtype=np.int64)
        return self._shapes[shape]

    def _grow(self) -> None:
        size = len(self._replicas)
        self._replicas += [None] * size
        self._until = np.concatenate([self._until, np.full(size, np.inf)])
        self._requests = np.concatenate([self._requests, np.full(size, NOBODY)])
        for shape, counts in self._shapes.items():
            self._shapes[shape] = np.concatenate([counts, np.zeros(size, dtype=np.int64)])
