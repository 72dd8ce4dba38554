"""Three ways to batch: pure functions from the scheduler's state and the time to a choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from chairlift.scheduling.state import Group, Progress, State


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which group runs next, and who joins it."""

    group: Group | None = None
    joining: tuple[Progress, ...] = ()
    """Waiting rows of ``group``."""
    wake_at: float | None = None
    """Without a group: when to choose again although nothing has arrived."""


BatchingMode = Callable[[State, float], Choice]


def continuous(state: State, now: float) -> Choice:
    """Rows join and leave at every step; groups take turns, the longest unserved first."""
    group = min(state.groups.values(), key=lambda group: group.last_turn, default=None)
    if group is None:
        return Choice()
    free = state.max_batch_size - len(group.running)
    return Choice(group=group, joining=tuple(islice(group.waiting.values(), free)))


def dynamic(state: State, now: float) -> Choice:
    """The published request-level method: the head of the queue collects requests that equal it
    in everything but prompt and seed, until the batch is full or the delay since the head's
    arrival has passed; the batch runs to completion.
    """
    if running := _running_group(state):
        return Choice(group=running)
    if (head := _head(state)) is None:
        return Choice()
    group = state.groups[head.key]
    alike = (row for row in group.waiting.values() if row.work.settings == head.work.settings)
    batch = tuple(islice(alike, state.max_batch_size))
    due = head.work.arrival + state.batch_delay
    if len(batch) < state.max_batch_size and now < due and not head.done:
        return Choice(wake_at=due)
    return Choice(group=group, joining=batch)


def off(state: State, now: float) -> Choice:
    """One request at a time (its images together), in order of arrival, run to completion."""
    if running := _running_group(state):
        return Choice(group=running)
    if (head := _head(state)) is None:
        return Choice()
    group = state.groups[head.key]
    request_id = head.work.id.request_id
    same = (row for row in group.waiting.values() if row.work.id.request_id == request_id)
    return Choice(group=group, joining=tuple(islice(same, state.max_batch_size)))


def _running_group(state: State) -> Group | None:
    return next((group for group in state.groups.values() if group.running), None)


def _head(state: State) -> Progress | None:
    """The row that has waited longest."""
    heads = [next(iter(group.waiting.values())) for group in state.groups.values()]
    return min(heads, key=lambda row: row.work.arrival, default=None)


MODES: dict[str, BatchingMode] = {"continuous": continuous, "dynamic": dynamic, "off": off}
