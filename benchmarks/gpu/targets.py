"""What chairlift has set itself on a GPU, and whether it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.gpu.figures import Figures
from benchmarks.gpu.results import Load, Size

LEAST_OF_BARE = 0.95
"""Throughput at saturation, of the bare loop at the knee."""
MOST_OF_DYNAMIC = 0.5
"""The p99 at the judged load, of that of ``dynamic``."""
MOST_OF_OFF = 1.0
"""Mean latency where batching gains nothing, of that of ``off``."""
NOISE = 0.01
"""By which two equal mean latencies may differ."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One target at one size."""

    what: str
    where: str
    """The load that decides."""
    value: float | None
    """None if it wasn't measured."""
    bound: float
    at_least: bool
    """Whether the bound is the least; else it is the most."""
    noise: float = 0.0
    """How far past the bound it may be."""

    @property
    def is_met(self) -> bool | None:
        """None if it wasn't measured."""
        if self.value is None:
            return None
        if self.at_least:
            return self.value >= self.bound - self.noise
        return self.value <= self.bound + self.noise

    def __str__(self) -> str:
        side = "at least" if self.at_least else "at most"
        target = f"{self.what}: {side} {self.bound:.2f}"
        if self.value is None:
            return f"not measured: {target}"
        word = "met" if self.is_met else "missed"
        return f"{word}: {target}; it is **{self.value:.3f}** ({self.where})"


def verdicts(size: Size) -> Iterator[Verdict]:
    """Those of this size."""
    if size.is_large:
        yield _mean(size)
    else:
        yield _throughput(size)
        yield _tail(size)


def _throughput(size: Size) -> Verdict:
    """Of the saturating loads the one that ``continuous`` served best, since few clients don't
    fill a forward where the knee is high.
    """
    shares = [
        (figures.throughput / size.bare, load.name)
        for load in size.loads
        if load.is_saturating and size.bare
        if (figures := size.figures("continuous", load))
    ]
    value, where = max(shares, default=(None, ""))
    return Verdict(
        what="throughput at saturation, of the bare loop at the knee",
        where=where,
        value=value,
        bound=LEAST_OF_BARE,
        at_least=True,
    )


def _tail(size: Size) -> Verdict:
    """At the load for which ``dynamic`` was swept."""
    load = size.judged
    return Verdict(
        what="p99, of that of the best dynamic",
        where=load.name if load else "",
        value=_ratio(size, load, "dynamic", "p99_s") if load else None,
        bound=MOST_OF_DYNAMIC,
        at_least=False,
    )


def _mean(size: Size) -> Verdict:
    """At the load at which it looks worst."""
    ratios = [
        (ratio, load.name)
        for load in size.loads
        if (ratio := _ratio(size, load, "off", "mean_s")) is not None
    ]
    value, where = max(ratios, default=(None, ""))
    return Verdict(
        what="mean latency, of that of off",
        where=where,
        value=value,
        bound=MOST_OF_OFF,
        at_least=False,
        noise=NOISE,
    )


def _ratio(size: Size, load: Load, other: str, figure: str) -> float | None:
    """Of ``continuous`` to another mode."""
    ours, theirs = size.figures("continuous", load), size.figures(other, load)
    if ours is None or theirs is None:
        return None
    return _value(ours, figure) / _value(theirs, figure)


def _value(figures: Figures, figure: str) -> float:
    value: float = getattr(figures, figure)
    return value
