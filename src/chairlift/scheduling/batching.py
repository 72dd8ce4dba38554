"""Three ways to batch: pure functions from the scheduler's state and the time to a choice."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice

from msgspec import Struct

from chairlift.scheduling.roster import Numbers
from chairlift.scheduling.state import Group, State
from chairlift.scheduling.work import Progress

PATIENCE = 20.0
"""Who has waited this many times as long as it takes alone, is served by the guard."""
PROBE = 32
"""One tick of so many may have twice as many rows as the knee: a size that was measured in a bad
moment isn't shunned for ever."""
GUARD = 64
"""One tick of so many belongs to the row that came first of all, if it has lost its patience."""


class Choice(Struct, frozen=True, kw_only=True):
    """Which group runs next, and which of its rows."""

    group: Group | None = None
    rows: tuple[Progress, ...] = ()
    """Those of the forward; who isn't aboard joins."""
    wake_at: float | None = None
    """Without a group: when to choose again although nothing has arrived."""


BatchingMode = Callable[[State, float], Choice]


def continuous(state: State, now: float) -> Choice:
    """Rows join, leave and pause at every step. In each group the policy names the rows of the
    next forward, and of the groups the one whose head ranks lowest runs.
    """
    groups = list(state.groups.values())
    if not groups:
        return Choice()
    if len(groups) == 1 and all_ride(state, groups[0]):
        return Choice(group=groups[0], rows=tuple(groups[0].rows))  # There is nothing to choose.
    ranks = state.policy([state.view(group, now) for group in groups])
    if _guards(state.tick) and (choice := _serve_oldest(state, groups, ranks, now)):
        return choice
    order = []
    for place, (group, own) in enumerate(zip(groups, ranks, strict=True)):
        head = group.rows.best(own, 1)[0]
        rank = float(own[group.rows.place(head.work.id)])
        order.append((-head.work.priority, rank, group.last_turn, head.number, place))
    for *_, place in sorted(order):
        if rows := _pick(state, groups[place], ranks[place], now):
            return Choice(group=groups[place], rows=rows)
    # Nobody is aboard, and there is room at last for the one for whom it was kept.
    return _serve_oldest(state, groups, ranks, now) or Choice()


def dynamic(state: State, now: float) -> Choice:
    """The published request-level method: the head of the queue collects requests that equal it
    in everything but prompt and seed, until the batch is full or the delay since the head's
    arrival has passed; the batch runs to completion.
    """
    if running := _running(state):
        return running
    if (head := _head(state)) is None:
        return Choice()
    group = state.groups[head.key]
    alike = (row for row in _in_order(group) if row.work.settings == head.work.settings)
    batch = tuple(_admit(state, group, list(islice(alike, state.most(group)))))
    due = head.work.arrival + state.batch_delay
    if len(batch) < state.most(group) and now < due and not head.done:
        return Choice(wake_at=due)
    return Choice(group=group, rows=batch)


def off(state: State, now: float) -> Choice:
    """One request at a time (its images together), in order of arrival, run to completion."""
    if running := _running(state):
        return running
    if (head := _head(state)) is None:
        return Choice()
    group = state.groups[head.key]
    request_id = head.work.id.request_id
    same = (row for row in _in_order(group) if row.work.id.request_id == request_id)
    batch = tuple(_admit(state, group, list(islice(same, state.most(group)))))
    return Choice(group=group, rows=batch)


def all_ride(state: State, group: Group) -> bool:
    """Whether all rows of ``group`` have slots, and fit into a forward."""
    if len(group.aboard) < len(group):
        return False
    return len(group) == 1 or (
        len(group) <= state.most(group) and group.rows.entries <= state.full(group)
    )


def _serve_oldest(
    state: State, groups: list[Group], ranks: list[Numbers], now: float
) -> Choice | None:
    """A forward with the row that has lost its patience, if there is one and it has a slot or finds
    one.
    """
    if (oldest := _impatient(state, now)) is None:
        return None
    place = [group.key for group in groups].index(oldest.key)
    rows = _pick(state, groups[place], ranks[place], now, oldest)
    return Choice(group=groups[place], rows=rows) if oldest in rows else None


def _pick(
    state: State, group: Group, ranks: Numbers, now: float, first: Progress | None = None
) -> tuple[Progress, ...]:
    """The rows of a group's next forward: ``first``, then those of the lowest ranks, as far as
    there are slots and memory. Paused rows keep theirs.
    """
    most, full = state.most(group), state.full(group)
    if _probes(state.tick):
        full = 2 * max(full, math.ceil(group.rows.entries / len(group)))
    rows = group.rows.best(ranks, min(most, full))
    if first is not None:
        rows = [first, *(row for row in rows if row is not first)][:most]
    rows = _fill(rows, full)
    joining = [row for row in rows if not row.aboard]
    if not joining:
        return tuple(rows)
    admitted = _admit(state, group, joining, _impatient(state, now))
    if len(admitted) == len(joining):
        return tuple(rows)
    rows = [row for row in rows if row.aboard] + admitted
    paused = sorted(
        (-row.work.priority, ranks[group.rows.place(id)], row.number, id)
        for id, row in group.aboard.items()
        if row not in rows
    )
    rows += [group.aboard[id] for *_, id in paused]
    return tuple(_fill(rows[:most], full))


def _fill(rows: list[Progress], entries: int) -> list[Progress]:
    """As many of ``rows``, in their order, as take no more than so many entries together; the first
    goes in any case.
    """
    taken = 0
    for place, row in enumerate(rows):
        taken += row.entries
        if taken > entries and place:
            return rows[:place]
    return rows


def _admit(
    state: State, group: Group, joining: list[Progress], oldest: Progress | None = None
) -> list[Progress]:
    """Those of ``joining`` for which there are slots and memory, in their order. The memory that
    ``oldest`` needs is kept, or a large row would find no room among small ones for ever.
    """
    slots = state.max_aboard - len(group.aboard)
    holding = list(state.aboard())
    if oldest and not oldest.aboard:
        holding.append(oldest)
    taken = sum(row.work.slot_memory for row in holding)
    decode = max((row.work.decode_memory for row in holding), default=0)
    admitted = []
    for row in joining[:slots]:
        if row is not oldest:
            taken += row.work.slot_memory
            decode = max(decode, row.work.decode_memory)
        if taken + decode > state.memory:
            break
        admitted.append(row)
    return admitted


def _probes(tick: int) -> bool:
    return tick % PROBE == PROBE // 2


def _guards(tick: int) -> bool:
    return tick % GUARD == 0


def ordinary_ticks(tick: int) -> int:
    """How many there are, from ``tick`` on, until one that is a probe or the guard's; at least 1,
    which is itself.
    """
    if _probes(tick) or _guards(tick):
        return 1
    return next(
        later - tick for later in range(tick + 1, tick + PROBE) if _probes(later) or _guards(later)
    )


def _impatient(state: State, now: float) -> Progress | None:
    """The row that came first of all, if it has waited too long. So nobody is passed over for
    ever, whatever the policy and the priorities.
    """
    oldest = min((group.rows.oldest() for group in state.groups.values()), key=_came)
    alone = oldest.work.alone(state.costs)
    return oldest if now - oldest.work.arrival > PATIENCE * alone else None


def _came(row: Progress) -> tuple[float, int]:
    return row.work.arrival, row.number


def _running(state: State) -> Choice | None:
    """The batch that is on its way to completion."""
    for group in state.groups.values():
        if group.aboard:
            return Choice(group=group, rows=tuple(group.aboard.values()))
    return None


def _head(state: State) -> Progress | None:
    """The row that has waited longest; rows between two legs come before those that haven't begun,
    whoever came to their group first.
    """
    waiting = (row for group in state.groups.values() for row in group.rows)
    return min(waiting, key=lambda row: (row.done == 0, *_came(row)), default=None)


def _in_order(group: Group) -> list[Progress]:
    return sorted(group.rows, key=_came)


MODES: dict[str, BatchingMode] = {"continuous": continuous, "dynamic": dynamic, "off": off}
