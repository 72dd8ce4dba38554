"""What the scheduler says, and what it is told: one tick."""

from __future__ import annotations

from dataclasses import dataclass

from chairlift.request import RowId
from chairlift.scheduling.batch_key import BatchKey


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
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


@dataclass(frozen=True, kw_only=True, slots=True)
class TickResult:
    """What became of a plan."""

    plan: Plan
    failed: frozenset[RowId] = frozenset()
    """Rows that have lost their slot to an error."""
    seconds: float = 0.0
    """Duration of the tick; what steps cost is learned from it."""
    out_of_memory: int = 0
    """Rows of the smallest forward for which there was no memory; 0 if there was enough."""
    encode_seconds: float = 0.0
    """Of them, what it took until the newcomers had their slots."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """Statistics of one moment."""

    running: int
    """Rows that have a slot."""
    waiting: int
    """Rows that wait for one."""
    backlog_seconds: float
    """Predicted time to do all that is running and waiting."""
