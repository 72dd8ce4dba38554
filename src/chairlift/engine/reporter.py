"""The reporter: what the engine says of itself, so that others can look on and know it alive."""

from __future__ import annotations

import time
from collections.abc import Callable

from chairlift.engine.ledger import Ledger
from chairlift.engine.messages import Activity, Busy, FromEngine, Rider, Tick
from chairlift.engine.runner import RunResult
from chairlift.scheduling.plan import Plan, Snapshot
from chairlift.scheduling.scheduler import Scheduler

REPORT_SECONDS = 0.1
"""The longest that a tick waits to be reported."""
PREDICTED_ROWS = 10_000
"""So many rows a second are told when they will be done: the more wait, the more rarely."""
BUSY_SECONDS = 1.0
"""Whatever is predicted to take at least so long is announced."""


class Reporter:
    """Gathers the ticks, and tells of several at once.

    Args:
        scheduler: Knows how things stand.
        ledger: Knows the rows.
        sink: Is told. It must not block.
    """

    def __init__(
        self, scheduler: Scheduler, ledger: Ledger, sink: Callable[[FromEngine], None]
    ) -> None:
        self._scheduler = scheduler
        self._ledger = ledger
        self._sink = sink
        self._ticks: list[Tick] = []
        self._snapshot = scheduler.snapshot()
        self._reported = 0.0
        self._predicted = 0.0

    def announce(self, seconds: float) -> None:
        """Something is begun that is predicted to take so long: silence is no death meanwhile."""
        if seconds >= BUSY_SECONDS:
            self._sink(Busy(seconds=seconds))

    def record(self, plan: Plan, result: RunResult) -> None:
        """A tick was made; its rows are in the ledger still."""
        request = self._ledger.requests[plan.running[0].request_id]
        riders = [
            Rider(row, step, self._ledger.evaluations(row))
            for row, step in zip(plan.running, plan.steps, strict=True)
        ]
        self._ticks.append(
            Tick(
                seconds=result.seconds,
                width=request.width,
                height=request.height,
                frames=request.frames,
                entries=result.entries,
                riders=riders,
            )
        )

    def report(self, at_once: bool) -> None:
        """Say what has happened, but not at every tick."""
        now = time.monotonic()
        if now < self._reported + REPORT_SECONDS and not at_once:
            return
        snapshot = self._scheduler.snapshot()
        if not self._ticks and snapshot == self._snapshot:
            return
        self._sink(
            Activity(
                ticks=self._ticks,
                running=snapshot.running,
                waiting=snapshot.waiting,
                backlog_seconds=snapshot.backlog_seconds,
                eta_s=self._predict(snapshot, now),
            )
        )
        self._ticks, self._snapshot, self._reported = [], snapshot, now

    def _predict(self, snapshot: Snapshot, now: float) -> dict[str, float]:
        """When everybody will be done, if it is time to say so again."""
        rows = snapshot.running + snapshot.waiting
        if now < self._predicted + max(REPORT_SECONDS, rows / PREDICTED_ROWS):
            return {}
        self._predicted = now
        return self._scheduler.predict(now)
