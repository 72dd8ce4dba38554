"""An engine's loop in this process: what becomes of the requests to it, callers that each wait for
their picture, and watches on what its thread does.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

from chairlift.engine.loop import Loop
from chairlift.engine.messages import (
    Activity,
    Cancel,
    Failed,
    Finished,
    FromEngine,
    Stop,
    Submit,
    encode,
)
from chairlift.errors import RequestCancelled
from chairlift.models.adapter import Adapter
from chairlift.request import GenerationRequest
from chairlift.scheduling.scheduler import Scheduler
from chairlift.validation import create_request


class Watch:
    """Tells how long the calling thread was in which of the functions that are watched. The time
    in a function doesn't count for the one that called it.
    """

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inner = [0.0]

    def watch(self, owner: Any, function: str, name: str) -> None:
        """Count the time in ``owner.function`` as ``name``."""
        original = getattr(owner, function)

        def timed(*arguments: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            start = time.perf_counter()
            try:
                return original(*arguments, **named)
            finally:
                whole = time.perf_counter() - start
                self.seconds[name] += whole - self._inner.pop()
                self._inner[-1] += whole

        setattr(owner, function, timed)


Ended = Callable[[str, str | None], None]


class Station:
    """A loop in this process, and what has become of the requests to it.

    Args:
        adapter: The model; the calling thread is the one that has loaded it.
        scheduler: The loop's.
        ended: Told the id of each request that has ended, and why there is no picture if there is
            none; on the loop's thread, or on the one that has written the file.
    """

    def __init__(
        self,
        adapter: Adapter,
        scheduler: Scheduler,
        ended: Ended = lambda request_id, failure: None,
    ) -> None:
        self.ended = ended
        self.arrivals: dict[str, float] = {}
        """When each request was made, by its id, in seconds of ``time.monotonic``."""
        self.finished: dict[str, float] = {}
        """When the file of each was there."""
        self.failed: dict[str, str] = {}
        """Why there is none."""
        self.cancelled: set[str] = set()
        self.tick_rows: list[int] = []
        """Rows of each tick."""
        self.scheduler = scheduler
        self.loop = Loop(adapter, scheduler, self._receive)

    @property
    def ends(self) -> int:
        """How many requests have ended."""
        return len(self.finished) + len(self.failed) + len(self.cancelled)

    @property
    def is_busy(self) -> bool:
        """Whether any has not."""
        return self.ends < len(self.arrivals)

    @property
    def under_way(self) -> set[str]:
        """Those that have not."""
        return set(self.arrivals).difference(self.finished, self.failed, self.cancelled)

    def submit(self, request: GenerationRequest, arrival: float | None = None) -> None:
        """Send a request that has come at that time; None is now. From any thread."""
        self.arrivals[request.id] = time.monotonic() if arrival is None else arrival
        self.loop.send(Submit(request=request))

    def turn(self) -> None:
        """One turn of the loop."""
        self.loop.turn()

    def cancel(self) -> None:
        """End whatever is under way."""
        told: set[str] = set()
        while under_way := self.under_way:
            for id in under_way - told:
                self.loop.send(Cancel(request_id=id))
            told |= under_way
            self.turn()

    def close(self) -> None:
        """End the loop and its threads; nothing may be under way."""
        self.loop.send(Stop())
        self.loop.run()

    def _receive(self, message: FromEngine) -> None:
        encode(message)
        now = time.monotonic()
        # Whoever is told may send another request: until then this one is under way, or there
        # might seem to be none.
        match message:
            case Activity(ticks=ticks):
                self.tick_rows.extend(len(tick.riders) for tick in ticks)
            case Finished(request_id=id):
                self.ended(id, None)
                self.finished[id] = now
            case Failed(request_id=id, code=RequestCancelled.code, message=reason):
                self.ended(id, reason)
                self.cancelled.add(id)
            case Failed(request_id=id, message=reason):
                self.ended(id, reason)
                self.failed[id] = reason


class Callers:
    """A closed loop around a loop.

    Args:
        adapter: The model.
        callers: How many there are; each sends its next request when it has its picture.
        max_batch_size: As for the scheduler.
        steps: Of the request of a number.
    """

    def __init__(
        self,
        adapter: Adapter,
        callers: int,
        max_batch_size: int | None,
        steps: Callable[[int], int],
    ) -> None:
        self.pictures = 0
        self.scheduler = Scheduler(batching="continuous", max_batch_size=max_batch_size)
        self._station = Station(adapter, self.scheduler, self._ended)
        self.loop = self._station.loop
        self._adapter = adapter
        self._steps = steps
        self._numbers = count()
        for _ in range(callers):
            self._send()

    def turn(self) -> None:
        """One turn of the loop."""
        self.loop.turn()

    def _send(self) -> None:
        number = next(self._numbers)
        request = create_request(
            self._adapter.card,
            id=str(number),
            prompt=f"a red boat on the left, {number} times",
            steps=self._steps(number),
            seed=number,
        )
        self._station.submit(request)

    def _ended(self, id: str, failure: str | None) -> None:
        """From the loop's thread, or from one that has written a file."""
        if failure is not None:
            raise RuntimeError(failure)
        self.pictures += 1
        self._send()
