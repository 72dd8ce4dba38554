"""Step-level batching as other servers do it; for comparison only."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from chairlift.errors import ConfigurationError
from chairlift.request import RowId
from chairlift.scheduling.costs import Costs, Shape
from chairlift.scheduling.plan import Plan, TickResult
from chairlift.scheduling.work import Progress, RowWork


class PeerScheduler:
    """First come, first served: the head of the queue joins the running batch if its key is the
    same and there is room; where it can't, everybody behind it waits too. Has the interface of
    :class:`~chairlift.scheduling.scheduler.Scheduler`; rows have one leg.

    Args:
        max_batch_size: The most rows in one forward.
        costs: What steps cost, for the backlog; it doesn't learn.

    Raises:
        ConfigurationError: An argument is out of bounds.
    """

    def __init__(self, *, max_batch_size: int = 8, costs: Costs | None = None) -> None:
        if max_batch_size < 1:
            raise ConfigurationError(f"max_batch_size is {max_batch_size}; it must be at least 1")
        self._max_batch_size = max_batch_size
        self._costs = Costs() if costs is None else costs
        self._queue: deque[Progress] = deque()
        self._running: dict[RowId, Progress] = {}

    def submit(self, rows: Iterable[RowWork]) -> None:
        """Append rows to the queue, in this order."""
        self._queue.extend(Progress(row) for row in rows)

    def plan(self, now: float) -> Plan:
        """The next tick; everybody aboard is in it."""
        running = self._running
        key = next(iter(running.values())).key if running else None
        while self._queue and len(running) < self._max_batch_size:
            if key is not None and self._queue[0].key != key:
                break
            head = self._queue.popleft()
            running[head.work.id] = head
            key = head.key
        if key is None:
            return Plan()
        return Plan(
            key=key,
            joining=tuple(id for id, row in running.items() if not row.done),
            running=tuple(running),
            steps=tuple(row.done for row in running.values()),
            finishing=frozenset(id for id, row in running.items() if row.remaining == 1),
        )

    def update(self, result: TickResult) -> None:
        """Count the steps that were made; who is done leaves."""
        for id in result.plan.running:
            self._running[id].advance()
            if id in result.plan.finishing or id in result.failed:
                del self._running[id]

    def backlog(self) -> float:
        """Predicted seconds of work that is accepted and not done."""
        left: dict[Shape, list[int]] = {}
        for row in (*self._running.values(), *self._queue):
            left.setdefault(row.work.shape, []).append(row.remaining)
        total = 0.0
        for shape, steps in left.items():
            rows = min(len(steps), self._max_batch_size)
            seconds = self._costs.step(shape).seconds(rows * self._costs.row_entries)
            total += sum(steps) * seconds / rows
            total += len(steps) * self._costs.decode(shape)
        return total
