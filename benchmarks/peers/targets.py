"""What chairlift has set itself, and whether it holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.peers.contestants import BASELINE, CONTESTANTS, OURS
from benchmarks.peers.results import Results, Spread
from benchmarks.peers.workloads import WORKLOADS

SATURATED = ("closed", "at-once")
"""Workloads of equal requests at saturation."""
MIXED = ("steps", "guidance")
LOADED = "poisson-0.7"
AT_LEAST_BASELINE = 2.2
AT_LEAST_EQUAL = 1.0
AT_LEAST_MIXED = 1.5
AT_MOST_LOADED = 0.6
TOLERANCE = 0.03


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One target on one workload."""

    what: str
    against: str
    """The peer that is hardest to beat there."""
    ratio: Spread
    """Of ours to that peer's, over the rounds; the median decides."""
    bound: float
    at_least: bool
    """Whether the bound is the least; else it is the most."""

    @property
    def is_hit(self) -> bool:
        if self.at_least:
            return self.ratio.median >= self.bound
        return self.ratio.median <= self.bound


def verdicts(results: Results, peers: Sequence[str]) -> Iterator[Verdict]:
    """All targets for which there are measurements."""
    for name in SATURATED:
        if BASELINE in peers:
            yield from _judge(results, [BASELINE], name, "throughput", AT_LEAST_BASELINE)
    for name in SATURATED:
        yield from _judge(results, peers, name, "throughput", AT_LEAST_EQUAL)
    for name in MIXED:
        yield from _judge(results, peers, name, "throughput", AT_LEAST_MIXED)
    for figure in ("mean", "p99"):
        yield from _judge(results, peers, LOADED, figure, AT_MOST_LOADED)
    for name, workload in WORKLOADS.items():
        if workload.is_saturating:
            yield from _judge(results, peers, name, "throughput", 1 - TOLERANCE)
        else:
            for figure in ("mean", "p99"):
                yield from _judge(results, peers, name, figure, 1 + TOLERANCE)


def _judge(
    results: Results, peers: Sequence[str], workload: str, figure: str, bound: float
) -> Iterator[Verdict]:
    """Against that peer against which chairlift looks worst."""
    at_least = figure == "throughput"
    ratios = [
        (ratio, peer)
        for peer in peers
        if (ratio := results.ratio(workload, OURS, peer, figure)) is not None
    ]
    if not ratios:
        return
    ratios.sort(key=lambda pair: pair[0].median, reverse=not at_least)
    ratio, peer = ratios[0]
    yield Verdict(
        what=f"{WORKLOADS[workload].title}: {figure}",
        against=CONTESTANTS[peer].title,
        ratio=ratio,
        bound=bound,
        at_least=at_least,
    )
