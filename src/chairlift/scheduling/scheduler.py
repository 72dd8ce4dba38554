"""The scheduler: which rows share the next forward.

Plain arithmetic: it imports no torch, reads no clock and does no I/O, so that a simulator can run
the very same object on a virtual clock. A turn of the engine's loop is::

    plan = scheduler.plan(now)
    result = runner.run(plan)
    scheduler.update(result)
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from chairlift.errors import ConfigurationError
from chairlift.request import RowId
from chairlift.scheduling.batching import MODES
from chairlift.scheduling.plan import Plan, Snapshot, TickResult
from chairlift.scheduling.state import Group, Progress, RowWork, State

DEFAULT_MAX_BATCH_SIZE = 16


class Scheduler:
    """Keeps the queue and the groups, and asks the batching mode what to do with them.

    Args:
        batching: ``continuous``, ``dynamic`` or ``off``.
        max_batch_size: The most rows in one forward.
        batch_delay: Seconds that the head of the queue waits for company (``dynamic`` only).

    Raises:
        ConfigurationError: An argument is out of bounds.
    """

    def __init__(self, *, batching: str, max_batch_size: int, batch_delay: float = 0.0) -> None:
        if batching not in MODES:
            raise ConfigurationError(
                f"batching is {batching!r}; it must be one of {', '.join(MODES)}"
            )
        if max_batch_size < 1:
            raise ConfigurationError(f"max_batch_size is {max_batch_size}; it must be at least 1")
        if not 0 <= batch_delay < float("inf"):
            raise ConfigurationError(f"batch_delay is {batch_delay} s; it must be 0 or more")
        self._state = State(max_batch_size=max_batch_size, batch_delay=batch_delay)
        self._choose = MODES[batching]
        self._tick = 0
        self._seconds_per_evaluation = 0.0

    def submit(self, rows: Iterable[RowWork]) -> None:
        """Append rows to the queue, in this order."""
        for row in rows:
            self._wait(Progress(row))

    def cancel(self, rows: Iterable[RowId]) -> None:
        """Forget these rows, waiting or running; ids that aren't here are passed over."""
        wanted = set(rows)
        for group in list(self._state.groups.values()):
            for row in wanted & group.waiting.keys():
                del group.waiting[row]
            for row in wanted & group.running.keys():
                del group.running[row]
            self._drop_if_empty(group)

    def plan(self, now: float) -> Plan:
        """The next tick, a function of the state and of ``now`` alone. Rows that join have a slot
        from here on.
        """
        choice = self._choose(self._state, now)
        group = choice.group
        if group is None:
            return Plan(wake_at=choice.wake_at)
        for row in choice.joining:
            group.running[row.work.id] = group.waiting.pop(row.work.id)
        ending = [row for row in group.running.values() if row.left == 1]
        return Plan(
            key=group.key,
            joining=tuple(row.work.id for row in choice.joining if not row.done),
            running=tuple(group.running),
            steps=tuple(row.done for row in group.running.values()),
            finishing=frozenset(row.work.id for row in ending if row.remaining == 1),
            changing=frozenset(row.work.id for row in ending if row.remaining > 1),
        )

    def update(self, result: TickResult) -> None:
        """Count the steps that were made and free the slots of rows that are done or failed, or
        that go on in another group.
        """
        plan = result.plan
        if plan.key is None:
            return
        group = self._state.groups[plan.key]
        self._tick += 1
        group.last_turn = self._tick
        for id in plan.running:
            row = group.running[id]
            row.advance()
            if id in result.failed or id in plan.finishing:
                del group.running[id]
            elif id in plan.changing:
                del group.running[id]
                self._wait(row)
        self._observe(result.seconds / len(plan.running))
        self._drop_if_empty(group)

    def snapshot(self) -> Snapshot:
        groups = self._state.groups.values()
        evaluations = sum(
            row.remaining
            for group in groups
            for row in chain(group.running.values(), group.waiting.values())
        )
        return Snapshot(
            running=sum(len(group.running) for group in groups),
            waiting=sum(len(group.waiting) for group in groups),
            backlog_seconds=evaluations * self._seconds_per_evaluation,
        )

    def _wait(self, row: Progress) -> None:
        """Append a row to the queue of the group that it is to go on in."""
        group = self._state.groups.setdefault(row.key, Group(row.key, last_turn=self._tick))
        group.waiting[row.work.id] = row

    def _observe(self, seconds_per_evaluation: float) -> None:
        """A moving average over about the last twenty ticks."""
        if self._seconds_per_evaluation == 0.0:
            self._seconds_per_evaluation = seconds_per_evaluation
        self._seconds_per_evaluation += 0.05 * (
            seconds_per_evaluation - self._seconds_per_evaluation
        )

    def _drop_if_empty(self, group: Group) -> None:
        if group.is_empty:
            del self._state.groups[group.key]
