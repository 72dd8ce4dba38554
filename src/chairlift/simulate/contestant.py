"""What is compared: the policies of our scheduler, its other modes, and what peers do."""

from __future__ import annotations

from copy import deepcopy

from chairlift.errors import ConfigurationError
from chairlift.scheduling.costs import Costs
from chairlift.scheduling.policies import POLICIES
from chairlift.simulate.names import CONTESTANT_NAMES
from chairlift.simulate.peers import PeerScheduler
from chairlift.simulate.replica import Schedules
from chairlift.simulate.stretches import StretchScheduler

COMPARISON_ROWS = 8
"""The most rows in one forward of those that don't know a knee."""
BATCH_DELAY = 0.05
"""Seconds that the head of the queue waits for company (``dynamic``)."""


def create_scheduler(name: str, costs: Costs, max_batch_size: int | None = None) -> Schedules:
    """A scheduler by its name.

    Args:
        name: One of :data:`~chairlift.simulate.names.CONTESTANT_NAMES`.
        costs: What it knows of the machine at the beginning; it gets a copy.
        max_batch_size: The most rows in one forward; None is the knee, and
            :data:`COMPARISON_ROWS` for those that don't know one.

    Raises:
        ConfigurationError: There is no such contestant.
    """
    known = deepcopy(costs)
    if name in POLICIES:
        return StretchScheduler(policy=name, max_batch_size=max_batch_size, costs=known)
    rows = COMPARISON_ROWS if max_batch_size is None else max_batch_size
    match name:
        case "off":
            return StretchScheduler(batching="off", max_batch_size=rows, costs=known)
        case "dynamic":
            return StretchScheduler(
                batching="dynamic", max_batch_size=rows, batch_delay=BATCH_DELAY, costs=known
            )
        case "peers":
            return PeerScheduler(max_batch_size=rows, costs=known)
    raise ConfigurationError(f"policy is {name!r}; it must be one of {', '.join(CONTESTANT_NAMES)}")
