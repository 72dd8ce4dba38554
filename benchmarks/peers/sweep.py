"""The search for a peer's best settings: one setting after the other, each the best so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.peers.contestants import Contestant
from benchmarks.peers.settings import PeerSettings

AS_GOOD = 0.97
"""Of the best throughput: settings that reach it are as good, and the lower latency decides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """What is tried."""

    networks: Sequence[tuple[int, bool]]
    """Threads, and whether the memory format is channels-last."""
    batch_sizes: Sequence[int]
    batch_timeouts: Sequence[float]
    """Seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """How settings have fared."""

    contestant: str
    settings: PeerSettings
    throughput: float
    """Requests a second, all at once."""
    mean_s: float
    """Latency when requests come at a rate that is the same in all trials of the contestant."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Try = Callable[[Contestant, PeerSettings], Trial]


def sweep(contestant: Contestant, choices: Choices, attempt: Try) -> list[Trial]:
    """Try settings, all by ``attempt``; what has been tried."""
    threads, channels_last = choices.networks[0]
    start = PeerSettings(
        threads=threads,
        channels_last=channels_last,
        max_batch_size=choices.batch_sizes[0],
        batch_timeout=choices.batch_timeouts[0],
    )
    trials = [attempt(contestant, start)]

    def vary(alternatives: Sequence[dict[str, Any]]) -> None:
        base = best(trials).settings
        for changes in alternatives:
            settings = replace(base, **changes)
            if all(settings != trial.settings for trial in trials):
                trials.append(attempt(contestant, settings))

    if contestant.batches:
        vary([{"max_batch_size": size} for size in choices.batch_sizes])
    vary([{"threads": threads, "channels_last": last} for threads, last in choices.networks])
    if contestant.waits:
        vary([{"batch_timeout": seconds} for seconds in choices.batch_timeouts])
    return trials


def best(trials: Sequence[Trial]) -> Trial:
    """Of those with about the highest throughput the one with the lowest latency."""
    highest = max(trial.throughput for trial in trials)
    good = [trial for trial in trials if trial.throughput >= AS_GOOD * highest]
    return min(good, key=lambda trial: trial.mean_s)
