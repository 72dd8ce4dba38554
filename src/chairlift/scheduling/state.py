"""What the scheduler remembers: the queue and the running rows, by group."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from chairlift.request import RowId
from chairlift.scheduling.batch_key import BatchKey


@dataclass(frozen=True, slots=True)
class Leg:
    """A part of a row's way that it makes in one group."""

    key: BatchKey
    evaluations: int
    """At least 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowWork:
    """What the scheduler knows of a row."""

    id: RowId
    legs: tuple[Leg, ...]
    """In order; most rows have one. Between two legs a row changes its group."""
    settings: Hashable
    """Everything but prompt, seed and bookkeeping; what the ``dynamic`` mode compares."""
    arrival: float
    """Seconds, on the clock that is passed to the scheduler."""

    @property
    def evaluations(self) -> int:
        """Denoiser evaluations until the row is done."""
        return sum(leg.evaluations for leg in self.legs)


@dataclass(slots=True)
class Progress:
    """A row and how far it has come."""

    work: RowWork
    done: int = 0
    """Evaluations made."""
    leg: int = 0
    """The leg that it is on."""
    left: int = 0
    """Evaluations until the end of that leg."""

    def __post_init__(self) -> None:
        self.left = self.work.legs[self.leg].evaluations

    @property
    def key(self) -> BatchKey:
        """Of the group that it is in."""
        return self.work.legs[self.leg].key

    @property
    def remaining(self) -> int:
        return self.work.evaluations - self.done

    def advance(self) -> None:
        """Count an evaluation; past the end of a leg that isn't the last, the next one begins."""
        self.done += 1
        self.left -= 1
        if not self.left and self.remaining:
            self.leg += 1
            self.left = self.work.legs[self.leg].evaluations


@dataclass(slots=True)
class Group:
    """The rows of one batch key: those that wait for a slot, in the order in which they came, and
    those that have one.
    """

    key: BatchKey
    last_turn: int
    """The number of ticks when the group last ran, or else when it was made."""
    waiting: dict[RowId, Progress] = field(default_factory=dict)
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
