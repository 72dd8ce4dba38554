"""Policies: in which order rows are served. Each is a pure function that ranks the rows of all
groups, the lowest first.

A rank is a time in seconds, so that the heads of different groups can be compared: it is when the
row would have arrived, had everybody's turn come in order of arrival. Priorities stand above ranks;
:mod:`chairlift.scheduling.batching` sees to it that nobody is passed over for ever.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from chairlift.scheduling.roster import Numbers, Roster

CREDIT = 2.0
"""Seconds that a row may have come later, for each second of work that it has less
(``balanced``)."""
WASTE = 8.0
"""Seconds that a row goes later for each second of the machine that its batch wastes, and for each
row elsewhere that waits meanwhile (``balanced``)."""
SRPT_PATIENCE = 20.0
"""After waiting this many times as long as it takes alone, a row isn't passed over any more."""
SOFT_DEADLINE = 3.0
"""For rows without a deadline: this many times as long as they take alone."""
CANDIDATES = 512
"""The most rows, those with the nearest deadlines, of which ``deadline`` looks who can make it."""
GATHER = 2.0
"""``deadline``: slack counts as longer, by so many times the share that a batch wastes. Who has
time lets others go first until there is company."""
RESERVE = 1.15
"""``deadline``: when it is looked who can make it, work is held to take so many times as long, as
some of the time will go to those who come later."""
LATE = 1e9
"""Added to the rank of rows that can't meet their deadline."""


class View(Struct, frozen=True, kw_only=True):
    """What a policy is told."""

    rows: Roster
    now: float
    full: float
    """Entries of a forward that is filled to the knee."""
    each: float
    """Predicted seconds of one entry of such a forward."""
    tick: float
    """Predicted seconds of a tick of as many entries as there are, up to the knee."""
    waste: float
    """By how many seconds an entry is dearer in that tick than in a full one."""
    finish: float
    """Predicted seconds from the last evaluation to the picture."""
    served: Mapping[int, float]
    """Seconds that each caller has had."""

    @property
    def left(self) -> Numbers:
        """Entries of forwards that each row has left to take."""
        return self.rows.column("left") * self.rows.column("entries")

    @property
    def work(self) -> Numbers:
        """Predicted seconds of the machine for each row's remaining work, in batches as full as
        they are.
        """
        return self.left * (self.each + self.waste)

    @property
    def waited(self) -> Numbers:
        return self.now - self.rows.column("arrival")


Policy = Callable[[Sequence[View]], list[Numbers]]


def _group_by_group(rank: Callable[[View], Numbers]) -> Policy:
    return lambda views: [rank(view) for view in views]


def fcfs(view: View) -> Numbers:
    """First come, first served."""
    return view.rows.column("arrival").copy()


def balanced(views: Sequence[View]) -> list[Numbers]:
    """Order of arrival, but a row with less work left passes those that came up to
    :data:`CREDIT` times the difference before it, and a group whose batch isn't full lets others
    go first: by :data:`WASTE` times the seconds that the machine would lose on the row's way,
    for each row of other groups that would wait meanwhile.
    """
    waiting = sum(len(view.rows) for view in views)
    ranks = []
    for view in views:
        others = waiting - len(view.rows)
        seconds = CREDIT * view.each + WASTE * others * view.waste
        ranks.append(view.rows.column("arrival") + seconds * view.left)
    return ranks


def srpt(view: View) -> Numbers:
    """Shortest remaining processing time; in order of arrival, and first, for those who have
    waited :data:`SRPT_PATIENCE` times as long as they take alone.
    """
    impatient = view.waited > SRPT_PATIENCE * view.rows.column("alone")
    return np.where(impatient, view.rows.column("arrival") - LATE, view.work)


def hrrn(view: View) -> Numbers:
    """Highest response ratio next (Brinch Hansen 1971): waited and remaining over remaining."""
    return -(view.waited + view.work) / np.maximum(view.work, 1e-9)


def deadline(views: Sequence[View]) -> list[Numbers]:
    """Least slack first, among as many as can make it; the others after all of them, in order of
    arrival. In a group whose batch isn't full, slack is stretched by what that would waste
    (:data:`GATHER`).

    Which can make it, Moore's algorithm (1968) says: in order of deadlines, as long as the
    predicted work, and some more (:data:`RESERVE`), fits; where it doesn't, the largest of those
    taken so far is given up.
    """
    slacks = [
        view.rows.column("deadline") - view.now - view.rows.column("left") * view.tick - view.finish
        for view in views
    ]
    ranks = [
        np.where(
            slack >= 0,
            slack * (1 + GATHER * view.waste / view.each),
            view.rows.column("arrival") + LATE,
        )
        for slack, view in zip(slacks, views, strict=True)
    ]
    for group, place in _given_up(views, slacks):
        ranks[group][place] += LATE / 2
    return ranks


def _given_up(views: Sequence[View], slacks: Sequence[Numbers]) -> list[tuple[int, int]]:
    """Group and place of the rows that could make it alone, but not with all the others."""
    candidates = [
        (due, seconds + view.finish, group, place)
        for group, (view, slack) in enumerate(zip(views, slacks, strict=True))
        for place, due, seconds in _columns(np.flatnonzero(slack >= 0), view)
    ]
    taken: list[tuple[float, int, int]] = []
    given_up = []
    busy = views[0].now if views else 0.0
    for due, seconds, group, place in heapq.nsmallest(CANDIDATES, candidates):
        work = RESERVE * seconds
        heapq.heappush(taken, (-work, group, place))
        busy += work
        if busy > due:
            largest, *row = heapq.heappop(taken)
            busy += largest
            given_up.append((row[0], row[1]))
    return given_up


def _columns(places: NDArray[np.intp], view: View) -> Iterator[tuple[int, float, float]]:
    """Place, deadline and work of some rows."""
    deadlines, work = view.rows.column("deadline")[places], view.work[places]
    return zip(places.tolist(), deadlines.tolist(), work.tolist(), strict=True)


def fair(view: View) -> Numbers:
    """The caller who has had least first, in seconds of the machine; in order of arrival for
    each caller.
    """
    # Whole numbers that are floats find the same entries.
    callers = view.rows.column("caller").tolist()
    served = np.array([view.served[caller] for caller in callers])
    # A caller's rows differ in arrival by less than a second of service differs.
    return served + 1e-6 * (view.rows.column("arrival") - view.now)


POLICIES: dict[str, Policy] = {
    "balanced": balanced,
    "fcfs": _group_by_group(fcfs),
    "srpt": _group_by_group(srpt),
    "hrrn": _group_by_group(hrrn),
    "deadline": deadline,
    "fair": _group_by_group(fair),
}
"""By the names of :data:`~chairlift.scheduling.names.POLICY_NAMES`."""
