"""Several ticks at once.

A *stretch* is a number of ticks of one plan, at most until the first of its rows is done. As long
as nobody comes the scheduler is asked again only at its end. That changes nothing where the
scheduler would have made the same plan again at each tick:

* in request-level batches, which run to completion;
* where all rows are in one group and ride;
* under ``balanced``, in which a row that has run ranks before those that haven't even more than
  before, but for the ticks of the guard and of the probe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from chairlift.request import RowId
from chairlift.scheduling.batching import all_ride, continuous, ordinary_ticks
from chairlift.scheduling.plan import Plan
from chairlift.scheduling.policies import balanced
from chairlift.scheduling.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class Stretch:
    """How long a plan lasts."""

    ticks: int
    """At least 1."""
    finishing: frozenset[RowId]
    """Whose last one is the last of these ticks."""


class StretchScheduler(Scheduler):
    """A scheduler that can be told of several ticks at once. Rows must have one leg, and ticks must
    cost what the scheduler believes.
    """

    def stretch(self, plan: Plan) -> Stretch:
        """From now to when the scheduler may plan something else."""
        assert plan.key is not None
        rows = self._state.groups[plan.key].rows
        left = [rows[id].remaining for id in plan.running]
        ticks = int(min(*left, self._same_again(plan)))
        finishing = [id for id, one in zip(plan.running, left, strict=True) if one == ticks]
        return Stretch(ticks, frozenset(finishing))

    def skip(self, plan: Plan, ticks: int, seconds: float) -> None:
        """Count ``ticks`` ticks of ``plan``, of ``seconds`` together, in which nobody is done."""
        assert plan.key is not None
        state = self._state
        rows = state.groups[plan.key].rows
        state.tick += ticks
        each = seconds / len(plan.running)
        for id in plan.running:
            row = rows[id]
            row.done += ticks
            row.left -= ticks
            row.remaining -= ticks
            rows.set(id, "left", row.remaining)
            state.callers.serve(row.work.caller, each)

    def _same_again(self, plan: Plan) -> float:
        """In how many ticks, this one included, nobody else is chosen."""
        assert plan.key is not None
        state = self._state
        group = state.groups[plan.key]
        if self._choose is not continuous:
            return math.inf
        if not group.curve.knows(sum(group.rows[id].entries for id in plan.running)):
            return 1  # What this tick teaches may change the next.
        if len(state.groups) == 1 and all_ride(state, group):
            return math.inf
        return ordinary_ticks(state.tick) if state.policy is balanced else 1
