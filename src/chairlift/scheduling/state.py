"""What the scheduler remembers: the rows, by group, and what steps cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from chairlift.request import RowId
from chairlift.scheduling.batch_key import BatchKey
from chairlift.scheduling.callers import Callers
from chairlift.scheduling.costs import Costs, Curve, Shape
from chairlift.scheduling.policies import SOFT_DEADLINE, Policy, View
from chairlift.scheduling.roster import Roster
from chairlift.scheduling.work import Progress

MAX_ENTRIES_PER_ROW = 2
TICKS_PER_ROW = 128
"""After running out of memory, a group is allowed one row more in so many ticks."""


@dataclass(slots=True)
class Group:
    """The rows of one batch key, of which some have a slot."""

    key: BatchKey
    shape: Shape
    curve: Curve
    """What its steps cost."""
    last_turn: int
    """The number of ticks when the group last ran, or else when it was made."""
    rows: Roster = field(default_factory=Roster)
    aboard: dict[RowId, Progress] = field(default_factory=dict)
    """Those that have a slot."""

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(kw_only=True, slots=True)
class State:
    """All of it. A batching mode is a function of this and of the time."""

    policy: Policy
    costs: Costs
    max_batch_size: int
    """The most rows in one forward."""
    one_at_a_time: bool
    """Whether requests don't share forwards."""
    fill_to_knee: bool
    """Whether a forward takes no more entries than the knee of its shape."""
    max_aboard: int
    """The most rows that may have a slot in one group, running or paused."""
    memory: float
    """Bytes for all rows that have slots."""
    batch_delay: float
    """Seconds that the head of the queue waits for company (``dynamic`` only)."""
    room: dict[BatchKey, float] = field(default_factory=dict)
    """The most rows in a forward of a group that has run out of memory."""
    groups: dict[BatchKey, Group] = field(default_factory=dict)
    """Never holds an empty group."""
    tick: int = 0
    """How many there were."""
    arrivals: int = 0
    """How many rows there were."""
    callers: Callers = field(default_factory=Callers)
    """Who is here, and what each has had."""

    def most(self, group: Group) -> int:
        """The most rows of ``group`` in one forward."""
        if not self.room:
            return self.max_batch_size
        return min(self.max_batch_size, int(self.room.get(group.key, self.max_batch_size)))

    def full(self, group: Group) -> int:
        """The most entries of ``group`` in one forward; a single row may take more."""
        most = MAX_ENTRIES_PER_ROW * self.most(group)
        return group.curve.knee(most) if self.fill_to_knee else most

    def make_room(self, group: Group, out_of_memory: int) -> None:
        """Half as many rows after a forward of so many has run out of memory; then slowly more
        again, since it may have been somebody else's memory.
        """
        if out_of_memory:
            self.room[group.key] = max(1.0, out_of_memory // 2)
        elif group.key in self.room:
            self.room[group.key] += 1 / TICKS_PER_ROW
            if self.room[group.key] >= self.max_batch_size:
                del self.room[group.key]

    def filled(self, group: Group) -> float:
        """Entries of a full forward of ``group``, if its rows all took as many as they do on
        average; a request's own images, which share forwards even one request at a time, aren't
        thought of.
        """
        each = group.rows.entries / len(group.rows)
        if self.one_at_a_time:
            return each
        return max(each, min(self.full(group), self.most(group) * each))

    def aboard(self) -> Iterator[Progress]:
        """Every row that has a slot."""
        for group in self.groups.values():
            yield from group.aboard.values()

    def view(self, group: Group, now: float) -> View:
        """What the policy is told of ``group``."""
        full = self.filled(group)
        entries = min(full, group.rows.entries)
        each, tick = group.curve.seconds(full) / full, group.curve.seconds(entries)
        return View(
            rows=group.rows,
            now=now,
            full=full,
            each=each,
            tick=tick,
            waste=max(0.0, tick / entries - each),
            finish=self.costs.decode(group.shape),
            served=self.callers.served,
        )

    def add(self, row: Progress) -> None:
        """A row waits for a slot in its group."""
        work = row.work
        group = self.groups.get(row.key)
        if group is None:
            curve = self.costs.step(work.shape)
            group = Group(row.key, work.shape, curve, last_turn=self.tick)
            self.groups[row.key] = group
        alone = work.alone(self.costs)
        deadline = work.arrival + SOFT_DEADLINE * alone if work.deadline is None else work.deadline
        if not row.number:
            self.arrivals += 1
            row.number = self.arrivals
        values = {
            "number": row.number,
            "arrival": work.arrival,
            "left": row.remaining,
            "entries": row.entries,
            "alone": alone,
            "deadline": deadline,
            "priority": work.priority,
            "caller": self.callers.come(work.caller),
        }
        group.rows.add(row, [values[name] for name in Roster.COLUMNS])

    def move(self, group: Group, id: RowId) -> None:
        """A row goes on in another group, in which it waits for a slot."""
        caller = group.rows[id].work.caller
        self.callers.come(caller)  # Who is between two groups hasn't gone.
        self.add(self.remove(group, id))
        self.callers.leave(caller)

    def remove(self, group: Group, id: RowId) -> Progress:
        """Take a row out of its group, and an empty group out of the state."""
        row = group.rows.remove(id)
        self.callers.leave(row.work.caller)
        if group.aboard.pop(id, None):
            row.aboard = False
        if not group.rows:
            del self.groups[group.key]
        return row
