"""Routers: which replica a job goes to."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from chairlift.errors import ConfigurationError
from chairlift.simulate.names import ROUTER_NAMES
from chairlift.simulate.replica import Replica

Router = Callable[[Sequence[Replica]], Replica]


class RoundRobin:
    """One after the other."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, replicas: Sequence[Replica]) -> Replica:
        replica = replicas[self._count % len(replicas)]
        self._count += 1
        return replica


class Least:
    """The one with the least of something; ties are drawn.

    Args:
        load: What there is to be little of.
        seed: Of what is drawn.
    """

    def __init__(self, load: Callable[[Replica], float], seed: int) -> None:
        self._load = load
        self._random = random.Random(seed)

    def __call__(self, replicas: Sequence[Replica]) -> Replica:
        loads = [self._load(replica) for replica in replicas]
        least = min(loads)
        ties = [number for number, load in enumerate(loads) if load == least]
        return replicas[ties[0] if len(ties) == 1 else self._random.choice(ties)]


def create_router(name: str, seed: int = 0) -> Router:
    """A router by its name.

    Raises:
        ConfigurationError: There is no such router.
    """
    match name:
        case "round-robin":
            return RoundRobin()
        case "least-requests":
            return Least(lambda replica: replica.requests, seed)
        case "least-backlog":
            return Least(lambda replica: replica.backlog, seed)
    raise ConfigurationError(f"router is {name!r}; it must be one of {', '.join(ROUTER_NAMES)}")
