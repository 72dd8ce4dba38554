"""The search for the best settings: one after the other, each beginning with the best so far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.peers.contestants import Contestant
from benchmarks.peers.settings import Settings

AS_GOOD = 0.97
"""Of the best throughput: settings that reach it are as good, and the lower latency decides."""
CLOSE = 1 / 1.5
"""Of the best throughput: where all numbers of processes reach it, they are tried again. A noisy
machine only makes slower, so the better trial counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """What is tried. The first of each is where the search begins."""

    processes: Sequence[tuple[int, int]]
    """How many, and the torch threads of each."""
    batch_sizes: Sequence[int]
    memory_formats: Sequence[bool]
    """Whether it is channels-last."""
    batch_timeouts: Sequence[float]
    """Seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """How settings have fared."""

    contestant: str
    settings: Settings
    throughput: float
    """Requests a second, all at once."""
    mean_s: float
    """Latency when requests come at a rate that is the same in all trials of the contestant."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Try = Callable[[Contestant, Settings], Trial]


def sweep(contestant: Contestant, choices: Choices, attempt: Try) -> Iterator[Trial]:
    """Try settings, all by ``attempt``.

    Yields:
        What has been tried, as it comes.
    """
    trials: list[Trial] = []
    base = Settings(
        channels_last=choices.memory_formats[0],
        max_batch_size=choices.batch_sizes[0],
        batch_timeout=choices.batch_timeouts[0],
    )
    divided = [replace(base, processes=count, threads=own) for count, own in choices.processes]
    for number, settings in enumerate([*divided, *divided]):
        if number < len(divided) or _is_close(trials[: len(divided)]):
            trials.append(attempt(contestant, settings))
            yield trials[-1]
    for alternatives in _stages(contestant, choices):
        base = best(trials).settings
        for changes in alternatives:
            settings = replace(base, **changes)
            if all(settings != trial.settings for trial in trials):
                trials.append(attempt(contestant, settings))
                yield trials[-1]


def _is_close(trials: Sequence[Trial]) -> bool:
    throughputs = [trial.throughput for trial in trials]
    return len(trials) > 1 and min(throughputs) >= CLOSE * max(throughputs)


def _stages(contestant: Contestant, choices: Choices) -> Iterator[list[dict[str, Any]]]:
    """What is varied, one after the other, once the number of processes is chosen."""
    if contestant.batches:
        yield [{"max_batch_size": size} for size in choices.batch_sizes]
    if contestant.is_peer:
        yield [{"channels_last": last} for last in choices.memory_formats]
    if contestant.waits:
        yield [{"batch_timeout": seconds} for seconds in choices.batch_timeouts]


def best_of_each(trials: Sequence[Trial]) -> dict[str, Trial]:
    """By the names of the contestants."""
    own: defaultdict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        own[trial.contestant].append(trial)
    return {name: best(those) for name, those in own.items()}


def best(trials: Sequence[Trial]) -> Trial:
    """Of those with about the highest throughput the one with the lowest latency."""
    highest = max(trial.throughput for trial in trials)
    good = [trial for trial in trials if trial.throughput >= AS_GOOD * highest]
    return min(good, key=lambda trial: trial.mean_s)
