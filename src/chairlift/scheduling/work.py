"""A row as the scheduler sees it: its work, and how far it has come."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from chairlift.request import RowId
from chairlift.scheduling.batch_key import BatchKey
from chairlift.scheduling.costs import Costs, Shape


@dataclass(frozen=True, slots=True)
class Leg:
    """A part of a row's way that it makes in one group."""

    key: BatchKey
    evaluations: int
    """At least 1."""
    entries: int = 1
    """Places in a forward that an evaluation takes: 2 with classifier-free guidance, and also where
    only some of them have it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowWork:
    """What the scheduler knows of a row."""

    id: RowId
    legs: tuple[Leg, ...]
    """In order; most rows have one. Between two legs a row changes its group."""
    shape: Shape
    """What its steps cost depends on."""
    settings: Hashable
    """Everything but prompt, seed and bookkeeping; what the ``dynamic`` mode compares."""
    arrival: float
    """Seconds, on the clock that is passed to the scheduler."""
    slot_memory: int = 0
    """Bytes that it takes while it has a slot."""
    decode_memory: int = 0
    """Bytes that decoding it takes, for that moment."""
    deadline: float | None = None
    """By when the caller wants it, on the same clock."""
    priority: int = 0
    """Higher goes first."""
    caller: str = ""
    """Whose it is, for the ``fair`` policy."""

    @property
    def evaluations(self) -> int:
        """Denoiser evaluations until the row is done."""
        return sum(leg.evaluations for leg in self.legs)

    def alone(self, costs: Costs) -> float:
        """Seconds that it takes with the machine to itself."""
        curve = costs.step(self.shape)
        steps = sum(leg.evaluations * curve.seconds(leg.entries) for leg in self.legs)
        return costs.encode(self.shape) + steps + costs.decode(self.shape)


@dataclass(slots=True)
class Progress:
    """A row and how far it has come."""

    work: RowWork
    number: int = 0
    """Rows are numbered as they come."""
    aboard: bool = False
    """Whether it has a slot in its group."""
    done: int = 0
    """Evaluations made."""
    leg: int = 0
    """The leg that it is on."""
    left: int = 0
    """Evaluations until the end of that leg."""
    remaining: int = 0
    """Evaluations until the row is done."""

    def __post_init__(self) -> None:
        self.left = self.work.legs[self.leg].evaluations
        self.remaining = self.work.evaluations

    @property
    def key(self) -> BatchKey:
        """Of the group that it is in."""
        return self.work.legs[self.leg].key

    @property
    def entries(self) -> int:
        """Places that it takes in the group's forward."""
        return self.work.legs[self.leg].entries

    def advance(self) -> None:
        """Count an evaluation; past the end of a leg that isn't the last, the next one begins."""
        self.done += 1
        self.left -= 1
        self.remaining -= 1
        if not self.left and self.remaining:
            self.leg += 1
            self.left = self.work.legs[self.leg].evaluations
