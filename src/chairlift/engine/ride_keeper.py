"""Whoever owes requests: keeps every ride until it ends, and passes on what is said of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextvars import Context
from types import MappingProxyType

from chairlift.engine.messages import IDLE, Activity
from chairlift.engine.ride import Ride
from chairlift.errors import RequestCancelled, Unavailable
from chairlift.request import GenerationRequest

logger = logging.getLogger(__name__)


class RideKeeper:
    """The requests that were accepted and have not ended; on the event loop."""

    def __init__(self) -> None:
        self._rides: dict[str, Ride] = {}
        self._listeners: set[Callable[[Activity], None]] = set()
        self.pending_rows = 0
        """Rows that were accepted and have not ended."""
        self.activity = IDLE
        """The last report."""
        self.on_restart: Callable[[], None] = lambda: None
        """Called when somebody who had requests has died and is going to be replaced."""
        self.on_end: list[Callable[[Ride], None]] = []
        """Called with every ride that has ended, whose answer is done, but for those that were
        refused; in the context in which it was submitted."""
        self.takes_requests = True
        """Until it drains or is closed."""
        self.is_closed = False
        """Whether it was closed."""

    @property
    def rides(self) -> Mapping[str, Ride]:
        """Requests that were accepted and have not ended, in the order in which they came."""
        return MappingProxyType(self._rides)

    def cancel(self, request_id: str) -> bool:
        """End a request, which fails with RequestCancelled; whether it was here."""
        ride = self._rides.get(request_id)
        if ride is None:
            return False
        return ride.fail(RequestCancelled("the request was cancelled"))

    def listen(self, listener: Callable[[Activity], None]) -> Callable[[], None]:
        """Call ``listener`` with every report from now on; returns what ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    async def drain(self, seconds: float) -> None:
        """Take no more requests, and wait until every accepted one has ended, at most this long."""
        self.takes_requests = False
        answers = [ride.answer for ride in self._rides.values()]
        if answers:
            await asyncio.wait(answers, timeout=seconds)

    # ------------------------------------------------------------------ for those who do the work

    def _check_open(self) -> None:
        if not self.takes_requests:
            raise Unavailable("the server is shutting down")

    def _accept(self, request: GenerationRequest, forget: Callable[[Ride], object]) -> Ride:
        """Owe a request from here on, until its answer is done; then ``forget`` it."""
        loop = asyncio.get_running_loop()
        ride = Ride(request, loop.create_future(), loop.time())
        self._rides[request.id] = ride
        self.pending_rows += request.n

        def end(answer: object) -> None:
            del self._rides[request.id]
            self.pending_rows -= request.n
            forget(ride)

        def tell(answer: object) -> None:
            for listener in () if ride.is_refused else self.on_end:
                listener(ride)

        # What is done for others isn't done in the context of this one's caller.
        ride.answer.add_done_callback(end, context=Context())
        ride.answer.add_done_callback(tell)
        return ride

    def _abandon_all(self) -> None:
        """Nobody does any more what isn't finished."""
        for ride in list(self._rides.values()):
            ride.fail(Unavailable("the server is shutting down"))

    def _report(self, activity: Activity) -> None:
        """Tell the rides and all listeners what has happened."""
        self.activity = activity
        now = asyncio.get_running_loop().time()
        for request_id, eta_s in activity.eta_s.items():
            if ride := self._rides.get(request_id):
                ride.due = now + eta_s
        for tick in activity.ticks:
            for rider in tick.riders:
                if ride := self._rides.get(rider.row.request_id):
                    ride.advance(rider)
            for request_id in {rider.row.request_id for rider in tick.riders}:
                if ride := self._rides.get(request_id):
                    ride.count_tick(len(tick.riders))
        for listener in list(self._listeners):
            try:
                listener(activity)
            except Exception:  # What is wrong with one of them is nobody else's fault.
                logger.exception("a report could not be passed on")
