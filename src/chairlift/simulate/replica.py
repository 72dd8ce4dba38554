"""One replica: a scheduler, and a machine whose ticks cost what a table says.

The rules of its clock, which are those of :mod:`chairlift.engine.loop`:

* A turn settles the tick that has just ended, and plans the next one, with everybody who has
  arrived by now, the present instant included.
* A tick takes the encode seconds of each row that joins, one after the other, and then the step
  seconds of its number of rows. The scheduler is told of this time only, as by the real runner.
* After a tick each row that it finished is decoded, one after the other; the next tick waits for
  the last of them. Rows decode in chunks, so that all of them are done at its end.
* A job has started when the tick begins in which its first row joins, and is finished when its
  last row is.
* A replica without a tick turns when a job arrives, or when its plan says.
* Where the scheduler would plan the same again, it makes a whole stretch of ticks in one turn
  (:mod:`chairlift.simulate.stretches`). A job that arrives ends the stretch after the tick that is
  under way; before it is submitted the scheduler is told of the ticks that are over.

The costs are the truth, never the scheduler's copy, which learns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from chairlift.request import RowId
from chairlift.scheduling.batch_key import BatchKey
from chairlift.scheduling.costs import Shape
from chairlift.scheduling.plan import Plan, TickResult
from chairlift.scheduling.work import Leg, RowWork
from chairlift.simulate.stretches import Stretch, StretchScheduler
from chairlift.simulate.truth import Truth
from chairlift.simulate.workload import Job


class Schedules(Protocol):
    """What a replica needs of a scheduler."""

    def submit(self, rows: Iterable[RowWork]) -> None: ...
    def plan(self, now: float) -> Plan: ...
    def update(self, result: TickResult) -> None: ...
    def backlog(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job."""

    job: Job
    start_s: float
    finish_s: float
    alone_s: float
    """What it takes with a replica to itself."""
    replica: int

    @property
    def latency_s(self) -> float:
        return self.finish_s - self.job.arrival_s


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    """What a replica did."""

    ticks: Mapping[int, int]
    """How many there were, by their number of rows."""
    busy_s: float
    """Ticks and decoding."""
    present_s: float
    """From when it began to start until it was gone."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A job and its number, which no two have in common."""

    number: int
    job: Job
    shape: Shape


@dataclass(slots=True)
class _Open:
    """A job that isn't finished."""

    entry: Entry
    rows: int
    """Those that aren't finished."""
    start: float | None = None


@dataclass(slots=True)
class _Running:
    """Ticks that are under way."""

    plan: Plan
    start: float
    encode: float
    step: float
    decode: float
    """Of one row."""
    ticks: int
    finishing: frozenset[RowId]

    @property
    def seconds(self) -> float:
        return self.encode + self.ticks * self.step + len(self.finishing) * self.decode

    def shorten(self, now: float) -> None:
        """End with the tick that is under way."""
        passed = now - self.start - self.encode
        ticks = max(1, math.ceil(passed / self.step)) if self.step else 1
        if ticks < self.ticks:
            self.ticks, self.finishing = ticks, frozenset()


class Replica:
    """See the module.

    Args:
        number: Its own.
        scheduler: Chooses the rows of every tick.
        truth: What ticks really take.
    """

    def __init__(self, number: int, scheduler: Schedules, truth: Truth) -> None:
        self.number = number
        self.next_turn: float | None = None
        """When it turns next, unless something arrives before; None while it has nothing to do."""
        self._scheduler = scheduler
        self._stretches = scheduler if isinstance(scheduler, StretchScheduler) else None
        """The same, if it can be told of several ticks at once."""
        self._truth = truth
        self._open: dict[str, _Open] = {}
        self._running: _Running | None = None
        self._last = 0.0
        """When something came or happened."""
        self._ticks: Counter[int] = Counter()
        self._busy = 0.0

    @property
    def requests(self) -> int:
        """Jobs that aren't finished."""
        return len(self._open)

    @property
    def busy_until(self) -> float:
        """When all that is here is predicted to be done; a moment that has passed if nothing is."""
        if not self._open:
            return 0.0
        backlog = self._scheduler.backlog()
        if self._running is None:
            return self._last + backlog
        return self._running.start + max(backlog, self._running.seconds)

    def statistics(self, present_s: float) -> BatchStatistics:
        return BatchStatistics(dict(sorted(self._ticks.items())), self._busy, present_s)

    def submit(self, entry: Entry, now: float) -> None:
        """A job arrives; :attr:`next_turn` may come to be earlier."""
        id, job, self._last = str(entry.number), entry.job, now
        self._open[id] = _Open(entry, job.n)
        if self._running is None:
            self.next_turn = now
        elif self._running.ticks > 1:
            self._running.shorten(now)
            self._skip(self._running)
            self.next_turn = self._running.start + self._running.seconds
        self._scheduler.submit(create_rows(job, id, entry.shape, self._truth.row_entries))

    def turn(self, now: float) -> list[tuple[Entry, Outcome]]:
        """Settle and plan; see the module. Returns what has finished."""
        outcomes, self._last = self._settle(now), now
        plan = self._scheduler.plan(now) if self._open else Plan()
        if plan.key is None:
            self.next_turn = plan.wake_at
            return outcomes
        for row in plan.joining:
            entry = self._open[row.request_id]
            entry.start = now if entry.start is None else entry.start
        truth, shape = self._truth, self._open[plan.running[0].request_id].entry.shape
        stretches = self._stretches
        stretch = stretches.stretch(plan) if stretches else Stretch(1, plan.finishing)
        self._running = _Running(
            plan=plan,
            start=now,
            encode=len(plan.joining) * truth.encode(shape),
            step=truth.step(shape, len(plan.running)),
            decode=truth.decode(shape),
            ticks=stretch.ticks,
            finishing=stretch.finishing,
        )
        self.next_turn = now + self._running.seconds
        return outcomes

    def abandon(self, now: float) -> list[Entry]:
        """The machine is gone at ``now``. Returns the jobs that aren't finished."""
        if self._running is not None:
            self._running.shorten(now)
            self._skip(self._running)
            self._busy += now - self._running.start
        entries = [entry.entry for entry in self._open.values()]
        self._open.clear()
        self._running = self.next_turn = None
        return entries

    def _settle(self, now: float) -> list[tuple[Entry, Outcome]]:
        running, self._running = self._running, None
        if running is None:
            return []
        self._skip(running)
        seconds, encode = running.encode + running.step, running.encode
        self._scheduler.update(
            TickResult(plan=running.plan, seconds=seconds, encode_seconds=encode)
        )
        self._ticks[len(running.plan.running)] += 1
        self._busy += running.seconds
        if not running.finishing:
            return []
        # In the order of the forward: that of a set differs from run to run.
        done = [row for row in running.plan.running if row in running.finishing]
        return [outcome for row in done for outcome in self._finish(row, now)]

    def _skip(self, running: _Running) -> None:
        """Tell the scheduler of all ticks of a stretch but the last, which alone is left."""
        ticks, plan = running.ticks - 1, running.plan
        if not ticks:
            return
        assert self._stretches is not None
        seconds = running.encode + ticks * running.step
        self._stretches.skip(plan, ticks, seconds)
        self._ticks[len(plan.running)] += ticks
        self._busy += seconds
        running.plan = Plan(key=plan.key, running=plan.running, finishing=running.finishing)
        running.start, running.encode, running.ticks = running.start + seconds, 0.0, 1

    def _finish(self, row: RowId, now: float) -> Iterator[tuple[Entry, Outcome]]:
        entry = self._open[row.request_id]
        entry.rows -= 1
        if entry.rows:
            return
        del self._open[row.request_id]
        assert entry.start is not None
        job = entry.entry.job
        seconds = self._truth.alone(entry.entry.shape, job)
        yield entry.entry, Outcome(job, entry.start, now, seconds, self.number)


def create_rows(job: Job, id: str, shape: Shape | None = None, entries: int = 1) -> list[RowWork]:
    """A job's rows, as the scheduler sees them.

    Args:
        job: What was asked for.
        id: Its name.
        shape: That of the job, where it is known.
        entries: Places that a row takes in a forward.
    """
    shape = job.shape if shape is None else shape
    key = _key(shape)
    deadline = None if job.deadline_s is None else job.arrival_s + job.deadline_s
    return [
        RowWork(
            id=RowId(id, image),
            legs=(Leg(key, job.steps, entries),),
            shape=shape,
            settings=(shape, job.steps),
            arrival=job.arrival_s,
            deadline=deadline,
            priority=job.priority,
            caller=job.caller,
        )
        for image in range(job.n)
    ]


@cache
def _key(shape: Shape) -> BatchKey:
    return BatchKey("model", (shape.frames, shape.height, shape.width), "text")
