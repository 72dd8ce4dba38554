"""What the scheduler says, and what it is told: one tick. Structs, since there are many of them."""

from __future__ import annotations

from msgspec import Struct

from chairlift.request import RowId
from chairlift.scheduling.batch_key import BatchKey


class Plan(Struct, frozen=True, kw_only=True):
    """One tick. Empty (``key`` is None) when there is nothing to run."""

    key: BatchKey | None = None
    joining: tuple[RowId, ...] = ()
    """Rows that take their first slot now; they are among ``running``."""
    running: tuple[RowId, ...] = ()
    """The rows of the forward."""
    steps: tuple[int, ...] = ()
    """For each row of the forward the number of evaluations that it has behind it."""
    finishing: frozenset[RowId] = frozenset()
    """The rows of the forward for which it is the last."""
    changing: frozenset[RowId] = frozenset()
    """The rows of the forward that go on in another group after it."""
    wake_at: float | None = None
    """If empty: when to plan again although nothing has arrived."""


class TickResult(Struct, frozen=True, kw_only=True):
    """What became of a plan."""

    plan: Plan
    failed: frozenset[RowId] = frozenset()
    """Rows that have lost their slot to an error."""
    seconds: float = 0.0
    """Duration of the tick; what steps cost is learned from it."""
    entries: int = 0
    """Of the forward, if they aren't what the rows were said to take; 0 if they are."""
    out_of_memory: int = 0
    """Rows of the smallest forward for which there was no memory; 0 if there was enough."""
    encode_seconds: float = 0.0
    """Of them, what it took until the newcomers had their slots."""


class Snapshot(Struct, frozen=True, kw_only=True):
    """Statistics of one moment."""

    running: int
    """Rows that have a slot."""
    waiting: int
    """Rows that wait for one."""
    backlog_seconds: float
    """Predicted time to do all that is running and waiting."""
