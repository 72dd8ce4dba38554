"""What is measured, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chairlift.scheduling.scheduler import Scheduler

JUDGED_LOAD = 0.7
"""The share of the bare loop's capacity at which the tail is judged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is done with every model."""

    sides: Sequence[int] = (512, 1024)
    """Of square pictures, in pixels."""
    large: int = 1024
    """From this side on, batching is held to gain nothing, and nothing is sent all at once."""
    steps: int | None = None
    """Of every request; None is the model's default."""
    rows: Sequence[int] = (1, 2, 4, 8, 16)
    """At which a step is measured."""
    repeats: int = 5
    """Steps of each number of rows; the median counts."""
    seconds: float = 15.0
    """Of each measurement, at least."""
    pictures: int = 24
    """Of each measurement with Poisson arrivals, at least."""
    clients: Sequence[int] = (12,)
    """Of the closed loops; the greatest number is the one with which ``dynamic`` is swept."""
    at_once: int = 64
    """Requests that are sent together; 0 leaves it out."""
    loads: Sequence[float] = (0.5, 0.7, 0.9)
    """Rates of Poisson arrivals, in shares of what the bare loop makes at the knee."""
    batch_sizes: Sequence[int] = (2, 4, 8)
    """Those that ``dynamic`` is swept over."""
    delays: Sequence[float] = (0.0, 0.1)
    """The same, in shares of the time that a picture takes alone."""
    seed: int = 1
    """Of the arrivals."""

    @property
    def judged_load(self) -> float:
        """The load that is nearest to :data:`JUDGED_LOAD`."""
        return min(self.loads, key=lambda load: abs(load - JUDGED_LOAD))


@dataclass(frozen=True, kw_only=True, slots=True)
class Mode:
    """One way to batch."""

    batching: str
    max_batch_size: int | None = None
    """None is the scheduler's default."""
    batch_delay: float = 0.0
    """Seconds."""

    def create_scheduler(self, memory: float) -> Scheduler:
        """Bounded by so many bytes."""
        scheduler = Scheduler(
            batching=self.batching,
            max_batch_size=self.max_batch_size,
            batch_delay=self.batch_delay,
        )
        scheduler.limit_memory(memory)
        return scheduler

    def __str__(self) -> str:
        if self.max_batch_size is None:
            return self.batching
        return f"{self.batching}, {self.max_batch_size} rows, {1000 * self.batch_delay:.0f} ms"


OFF = Mode(batching="off")
CONTINUOUS = Mode(batching="continuous")
