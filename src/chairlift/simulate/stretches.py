"""Several ticks at once.

A *stretch* is a number of ticks of one plan, until the first of its rows is done. As long as nobody
comes the scheduler is asked again only at its end. That is exact where there is nothing to choose:
one group whose rows all ride. Where there is, the plan is held for the stretch, although the
scheduler, asked at every tick, might have changed it.
"""

from __future__ import annotations

from dataclasses import dataclass

from chairlift.request import RowId
from chairlift.scheduling.plan import Plan
from chairlift.scheduling.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class Stretch:
    """How long a plan may be held."""

    ticks: int
    """At least 1."""
    finishing: frozenset[RowId]
    """Whose last one is the last of these ticks."""


class StretchScheduler(Scheduler):
    """A scheduler that can be told of several ticks at once; rows must have one leg."""

    def stretch(self, plan: Plan) -> Stretch:
        """From now to the end of the first of the plan's rows."""
        assert plan.key is not None
        rows = self._state.groups[plan.key].rows
        left = [rows[id].remaining for id in plan.running]
        ticks = min(left)
        ends = (id for id, one in zip(plan.running, left, strict=True) if one == ticks)
        return Stretch(ticks, frozenset(ends))

    def skip(self, plan: Plan, ticks: int, seconds: float) -> None:
        """Count ``ticks`` ticks of ``plan``, each of ``seconds``, in which nobody is done."""
        assert plan.key is not None
        state = self._state
        rows = state.groups[plan.key].rows
        state.tick += ticks
        each = ticks * seconds / len(plan.running)
        for id in plan.running:
            row = rows[id]
            row.done += ticks
            row.left -= ticks
            row.remaining -= ticks
            rows.set(id, "left", row.remaining)
            state.callers.serve(row.work.caller, each)
