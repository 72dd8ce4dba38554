"""The dispatcher: which worker gets which request.

A request goes to the worker with the least predicted backlog. What a worker had when it died goes
to the others, and when a worker comes that has nothing, it gets its share of what they have not
begun. But who was aboard at several deaths is suspected, and tried on a worker that has nothing
else, while the other workers go on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from chairlift.engine.berth import Berth
from chairlift.engine.messages import Submit, Tick, encode
from chairlift.engine.ride import Ride
from chairlift.errors import EngineCrash
from chairlift.scheduling.costs import UNKNOWN_SECONDS
from chairlift.scheduling.routing import Traits, choose_place, pixel_steps

logger = logging.getLogger(__name__)

SUSPECT_CRASHES = 2
"""A request that was there when a worker died this often is run alone, before all others."""
NEW_WEIGHT = 0.1
"""Of a tick beside what was known of the ticks before."""


class Dispatcher:
    """Gives rides to berths.

    Args:
        rides: All that are owed, in the order in which they came.
    """

    def __init__(self, rides: Mapping[str, Ride]) -> None:
        self.berths: list[Berth] = []
        self._rides = rides
        self._where: dict[str, Berth] = {}
        """Who has which request; those that aren't in here wait for a worker."""
        self._cell: Berth | None = None
        """Where suspects are tried: nobody else is sent there."""
        self._suspect: Ride | None = None
        """Who is tried there now; None while others get off."""
        self._seconds: float | None = None
        """What a pixel-step takes; None before the first tick."""

    def send(self, ride: Ride, frame: bytes) -> None:
        """Give a request to the best worker; if none takes requests, it waits.

        Args:
            ride: Of the request, which no worker has.
            frame: Its Submit, encoded.
        """
        berths = self.open_berths
        if berths:
            traits = Traits.of(ride.request)
            places = [berth.place(traits, self._pixel_step_seconds) for berth in berths]
            best = choose_place(places, traits)
            self._give(ride, frame, berths[best])

    @property
    def open_berths(self) -> list[Berth]:
        """Those that take any request."""
        ready = [berth for berth in self.berths if berth.supervisor.is_ready]
        return [berth for berth in ready if berth is not self._cell]

    def forget(self, ride: Ride, cancel: bool) -> None:
        """A request has ended; its worker is told if it doesn't know."""
        berth = self._where.pop(ride.request.id, None)
        if berth is None:
            return
        berth.remove(ride, cancel)
        if ride is self._suspect:
            self._suspect = None
        if berth is self._cell:
            self.dispatch()

    def lose(self, berth: Berth) -> None:
        """A worker has died. Who had it to himself then is to blame, and nobody else; who was there
        with others is suspected after some times. All start from the beginning.
        """
        lost = berth.clear()
        for ride in lost:
            del self._where[ride.request.id]
            ride.restart()
        if berth is self._cell and self._suspect is not None:
            self._convict(self._suspect)
        else:
            for ride in lost:
                ride.crashes += 1
        if berth is self._cell:
            self._cell = self._suspect = None
        self.dispatch()

    def dispatch(self) -> None:
        """Give every request that waits to a worker, as far as there are any that take it."""
        waiting = [
            ride
            for id, ride in self._rides.items()
            if id not in self._where and not ride.answer.done()
        ]
        self._try([ride for ride in waiting if ride.crashes >= SUSPECT_CRASHES])
        for ride in waiting:
            if ride.crashes < SUSPECT_CRASHES and self.open_berths:
                self.send(ride, encode(Submit(request=ride.submission)))
        for berth in self.open_berths:
            if not berth.rides:
                self._share_with(berth)

    def learn(self, ticks: Iterable[Tick]) -> None:
        """See what a pixel-step takes."""
        for tick in ticks:
            if not tick.entries:  # All its rows have failed before their step.
                continue
            pixels = tick.width * tick.height * tick.frames
            seconds = tick.seconds / (pixels * tick.entries)
            known = seconds if self._seconds is None else self._seconds
            self._seconds = known + NEW_WEIGHT * (seconds - known)

    def _share_with(self, idle: Berth) -> None:
        """Move to it what others have not begun, as long as it is done sooner there: from the one
        that has most, who would wait longest first.
        """
        ahead = {berth: berth.backlog(self._pixel_step_seconds) for berth in self.open_berths}
        busy = ahead.keys() - {idle}
        while busy:
            busiest = max(busy, key=lambda berth: (ahead[berth], -berth.number))
            ride = busiest.last_to_begin()
            if ride is None:
                busy.remove(busiest)
                continue
            seconds = self._pixel_step_seconds * pixel_steps(ride.request)
            if ahead[idle] + seconds >= ahead[busiest]:
                break
            busiest.remove(ride, cancel=True)
            ride.restart()
            self._give(ride, encode(Submit(request=ride.submission)), idle)
            ahead[busiest] -= seconds
            ahead[idle] += seconds

    @property
    def _pixel_step_seconds(self) -> float:
        return UNKNOWN_SECONDS / 512**2 if self._seconds is None else self._seconds

    def _give(self, ride: Ride, frame: bytes, berth: Berth) -> None:
        self._where[ride.request.id] = berth
        berth.send(ride, frame)

    # ------------------------------------------------------------------ suspects

    def _try(self, suspects: list[Ride]) -> None:
        """Run one of them alone, if a worker has nothing else; those who have been in a tick are
        suspected first.
        """
        if self._suspect is not None:
            return
        if not suspects:
            self._cell = None
            return
        self._cell = self._cell or self._choose_cell()
        if self._cell is None or self._cell.rides or not self._cell.supervisor.is_ready:
            return
        self._suspect = max(suspects, key=lambda ride: ride.ticks > 0)
        logger.warning("%s is run alone: the engine died with it", self._suspect.request.id)
        self._give(self._suspect, encode(Submit(request=self._suspect.submission)), self._cell)

    def _choose_cell(self) -> Berth | None:
        """A worker that has nothing, but not the last one, if another is about to start. Where no
        worker is, the one that has least: it gets nothing more until it has nothing.
        """
        ready = [berth for berth in self.berths if berth.supervisor.is_ready]
        starting = [
            berth
            for berth in self.berths
            if not berth.supervisor.is_ready and berth.supervisor.failure is None
        ]
        empty = [berth for berth in ready if not berth.rides]
        if empty and (len(ready) > 1 or not starting):
            return empty[0]
        if starting:
            return None
        return min(ready, key=lambda berth: len(berth.rides), default=None)

    def _convict(self, culprit: Ride) -> None:
        is_guilty = culprit.fail(
            EngineCrash(
                f"the engine died {culprit.crashes + 1} times with this request, the last time "
                "with nothing else"
            )
        )
        if is_guilty:
            for ride in self._rides.values():
                ride.crashes = 0
