"""How many replicas there should be: a function from what is seen to a number.

It reads no clock and knows no cluster, so the simulator runs the very same function on a virtual
clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from chairlift.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoscalingOptions:
    """What the operator wants.

    Raises:
        ConfigurationError: A value is out of bounds.
    """

    min_replicas: int = 1
    """0 or more. With 0 the last replica goes when there is nothing to do; who comes then waits
    for a new one."""
    max_replicas: int = 1
    """At least 1 and ``min_replicas``."""
    target_seconds: float = 10.0
    """Predicted seconds of work that each replica should have before it; above 0."""
    scale_out_delay_s: float = 10.0
    """Seconds for which more replicas must be wanted without a break before there are more."""
    scale_in_delay_s: float = 300.0
    """Seconds for which fewer replicas must be wanted without a break before there are fewer."""
    max_wait_s: float = 300.0
    """Seconds that a request waits at most while there is no replica; then it is refused."""

    def __post_init__(self) -> None:
        least = max(1, self.min_replicas)
        for name, good, bound in (
            ("min_replicas", self.min_replicas >= 0, "0 or more"),
            ("max_replicas", self.max_replicas >= least, f"{least} or more"),
            ("target_seconds", 0 < self.target_seconds < math.inf, "above 0"),
            ("scale_out_delay_s", 0 <= self.scale_out_delay_s < math.inf, "0 or more"),
            ("scale_in_delay_s", 0 <= self.scale_in_delay_s < math.inf, "0 or more"),
            ("max_wait_s", 0 <= self.max_wait_s < math.inf, "0 or more"),
        ):
            if not good:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be {bound}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What is seen at one moment."""

    now: float
    """Seconds, on any clock that only goes forward."""
    target: int
    """Replicas that there should be by the last decision; some may be starting still."""
    backlog_seconds: float
    """Predicted seconds of work of all replicas together."""
    waiting: int = 0
    """Requests that have found no replica."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A change that is wanted and hasn't been made."""

    since: float | None = None
    """Since when it is wanted without a break; None where none is."""
    most: int = 0
    """The most replicas that were wanted meanwhile."""


def decide(
    options: AutoscalingOptions, memory: Memory, observation: Observation
) -> tuple[int, Memory]:
    """How many replicas there should be: as many as bring the backlog of each to the target.

    Args:
        options: What the operator wants.
        memory: What the last call returned; ``Memory()`` for the first one.
        observation: What is seen now.

    Returns:
        The number, and what to remember for the next call.
    """
    wanted = math.ceil(observation.backlog_seconds / options.target_seconds)
    return hold(options, memory, observation, wanted)


def hold(
    options: AutoscalingOptions, memory: Memory, observation: Observation, wanted: int
) -> tuple[int, Memory]:
    """``wanted`` replicas, within the bounds, once that has been wanted for long enough.

    More is what is wanted at the end of the delay; fewer is the most that was wanted during it.
    The first replica for a request that waits is there without a delay.
    """
    now, target = observation.now, observation.target
    least = max(options.min_replicas, min(1, observation.waiting))
    wanted = min(max(wanted, least), options.max_replicas)
    if target < least or target > options.max_replicas:
        return wanted, Memory()
    if wanted == target:
        return target, Memory()
    more = wanted > target
    unbroken = memory.since is not None and (memory.most > target) == more
    since = memory.since if memory.since is not None and unbroken else now
    most = max(wanted, memory.most) if unbroken else wanted
    if now - since < (options.scale_out_delay_s if more else options.scale_in_delay_s):
        return target, Memory(since, most)
    return (wanted if more else most), Memory()
