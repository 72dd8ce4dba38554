"""What was measured: every contestant on every workload, round by round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from chairlift.bench.report import Distribution, Summary


def _latency(summary: Summary) -> Distribution:
    latency = summary.seconds["latency"]
    assert latency is not None, "nothing was completed"
    return latency


FIGURES: Mapping[str, Callable[[Summary], float]] = {
    "throughput": lambda summary: summary.throughput,
    "mean": lambda summary: _latency(summary).mean,
    "p50": lambda summary: _latency(summary).p50,
    "p95": lambda summary: _latency(summary).p95,
    "p99": lambda summary: _latency(summary).p99,
}
"""Requests a second, and seconds of latency."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Of one value a round."""

    median: float
    least: float
    greatest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} to {self.greatest:.2f})"


def spread(values: Sequence[float]) -> Spread | None:
    """None where there are no values."""
    return Spread(median(values), min(values), max(values)) if values else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One contestant on one workload in one round."""

    round: int
    contestant: str
    workload: str
    summary: Summary | None
    """None where the requests would come faster than the contestant serves them."""

    def to_json(self) -> dict[str, Any]:
        return {
            "round": self.round,
            "contestant": self.contestant,
            "workload": self.workload,
            "summary": self.summary and self.summary.to_json(),
        }


@dataclass(slots=True)
class Results:
    """All measurements."""

    measurements: list[Measurement] = field(default_factory=list)

    def of_round(self, workload: str, contestant: str, figure: str) -> dict[int, float]:
        """The figure by the numbers of the rounds."""
        return {
            one.round: FIGURES[figure](one.summary)
            for one in self.measurements
            if (one.workload, one.contestant) == (workload, contestant) and one.summary
        }

    def figure(self, workload: str, contestant: str, figure: str) -> Spread | None:
        """Over the rounds; None if it wasn't measured."""
        return spread(list(self.of_round(workload, contestant, figure).values()))

    def ratio(self, workload: str, ours: str, theirs: str, figure: str) -> Spread | None:
        """Of ours to theirs, taken within each round; None if there is no round with both."""
        own = self.of_round(workload, ours, figure)
        other = self.of_round(workload, theirs, figure)
        return spread([own[number] / other[number] for number in own if number in other])

    def has(self, workload: str, contestant: str) -> bool:
        """Whether it was that contestant's turn, also if it was overloaded then."""
        return any(
            (one.workload, one.contestant) == (workload, contestant) for one in self.measurements
        )
