"""What the scheduler remembers: the queue and the running rows, by group."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from chairlift.request import RowId
from chairlift.scheduling.batch_key import BatchKey


@dataclass(frozen=True, kw_only=True, slots=True)
class RowWork:
    """What the scheduler knows of a row."""

    id: RowId
    key: BatchKey
    evaluations: int
    """Denoiser evaluations until the row is done; at least 1."""
    settings: Hashable
    """Everything but prompt, seed and bookkeeping; what the ``dynamic`` mode compares."""
    arrival: float
    """Seconds, on the clock that is passed to the scheduler."""


@dataclass(slots=True)
class Progress:
    """A row that has a slot."""

    work: RowWork
    done: int = 0
    """Evaluations made."""

    @property
    def remaining(self) -> int:
        return self.work.evaluations - self.done


@dataclass(slots=True)
class Group:
    """The rows of one batch key: those that wait for a slot, oldest first, and those that have
    one.
    """

    key: BatchKey
    last_turn: int
    """The number of ticks when the group last ran, or else when it was made."""
    waiting: dict[RowId, RowWork] = field(default_factory=dict)
    running: dict[RowId, Progress] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not self.waiting and not self.running


@dataclass(kw_only=True, slots=True)
class State:
    """All of it. A batching mode is a function of this and of the time."""

    max_batch_size: int
    """The most rows in one forward."""
    batch_delay: float
    """Seconds that the head of the queue waits for company (``dynamic`` only)."""
    groups: dict[BatchKey, Group] = field(default_factory=dict)
    """Never holds an empty group."""
