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

The costs are the truth, never the scheduler's copy, which learns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from chairlift.request import RowId
from chairlift.scheduling.batch_key import BatchKey
from chairlift.scheduling.costs import Costs, Shape
from chairlift.scheduling.plan import Plan, TickResult
from chairlift.scheduling.work import Leg, RowWork
from chairlift.simulate.workload import Job, alone


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


@dataclass(slots=True)
class _Open:
    """A job that isn't finished."""

    job: Job
    number: int
    shape: Shape
    rows: int
    """Those that aren't finished."""
    start: float | None = None


class Replica:
    """See the module.

    Args:
        number: Its own.
        scheduler: Chooses the rows of every tick.
        costs: What ticks really take.
    """

    def __init__(self, number: int, scheduler: Schedules, costs: Costs) -> None:
        self.number = number
        self.next_turn: float | None = None
        """When it turns next, unless something arrives before; None while it has nothing to do."""
        self._scheduler = scheduler
        self._costs = costs
        self._seconds: dict[tuple[Shape, int], float] = {}
        self._open: dict[str, _Open] = {}
        self._running: TickResult | None = None
        self._ticks: Counter[int] = Counter()
        self._busy = 0.0
        self._backlog: float | None = None

    @property
    def requests(self) -> int:
        """Jobs that aren't finished."""
        return len(self._open)

    @property
    def backlog(self) -> float:
        """Predicted seconds of work."""
        if self._backlog is None:
            self._backlog = self._scheduler.backlog()
        return self._backlog

    @property
    def idle(self) -> bool:
        """Whether no tick is under way."""
        return self._running is None

    @property
    def statistics(self) -> BatchStatistics:
        return BatchStatistics(dict(sorted(self._ticks.items())), self._busy)

    def submit(self, job: Job, number: int) -> None:
        """A job arrives.

        Args:
            job: It.
            number: Names it; no two have the same.
        """
        id, shape = str(number), job.shape
        self._open[id] = _Open(job, number, shape, job.n)
        self._scheduler.submit(create_rows(job, id))
        self._backlog = None

    def turn(self, now: float) -> list[tuple[int, Outcome]]:
        """Settle and plan; see the module. Returns what has finished, with its number."""
        outcomes = self._settle(now)
        plan = self._scheduler.plan(now)
        self._backlog = None
        if plan.key is None:
            self._running, self.next_turn = None, plan.wake_at
            return outcomes
        for row in plan.joining:
            entry = self._open[row.request_id]
            entry.start = now if entry.start is None else entry.start
        shape, rows = self._open[plan.running[0].request_id].shape, len(plan.running)
        encode = len(plan.joining) * self._costs.encode(shape) if plan.joining else 0.0
        tick = encode + self._step(shape, rows)
        decode = len(plan.finishing) * self._costs.decode(shape) if plan.finishing else 0.0
        self._running = TickResult(plan=plan, seconds=tick, encode_seconds=encode)
        self._ticks[rows] += 1
        self._busy += tick + decode
        self.next_turn = now + tick + decode
        return outcomes

    def _settle(self, now: float) -> list[tuple[int, Outcome]]:
        result = self._running
        if result is None:
            return []
        self._scheduler.update(result)
        if not result.plan.finishing:
            return []
        # In the order of the forward: that of a set differs from run to run.
        done = [row for row in result.plan.running if row in result.plan.finishing]
        return [outcome for row in done for outcome in self._finish(row, now)]

    def _finish(self, row: RowId, now: float) -> Iterable[tuple[int, Outcome]]:
        entry = self._open[row.request_id]
        entry.rows -= 1
        if entry.rows:
            return
        del self._open[row.request_id]
        assert entry.start is not None
        seconds = alone(self._costs, entry.job)
        yield entry.number, Outcome(entry.job, entry.start, now, seconds, self.number)

    def _step(self, shape: Shape, rows: int) -> float:
        if (shape, rows) not in self._seconds:
            self._seconds[shape, rows] = self._costs.step(shape).seconds(rows)
        return self._seconds[shape, rows]


def create_rows(job: Job, id: str) -> list[RowWork]:
    """A job's rows, as the scheduler sees them."""
    shape = job.shape
    key = BatchKey("model", (shape.frames, shape.height, shape.width), "text")
    deadline = None if job.deadline_s is None else job.arrival_s + job.deadline_s
    return [
        RowWork(
            id=RowId(id, image),
            legs=(Leg(key, job.steps),),
            shape=shape,
            settings=(shape, job.steps),
            arrival=job.arrival_s,
            deadline=deadline,
            priority=job.priority,
            caller=job.caller,
        )
        for image in range(job.n)
    ]
