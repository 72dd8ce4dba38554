"""What requests take alone, which is what an objective of so many times that counts from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from chairlift.bench.requests import PlannedRequest
from chairlift.errors import ConfigurationError
from chairlift.scheduling.costs import Costs
from chairlift.simulate.workload import Job, alone

REPEATS = 3
"""How often each is measured; the median counts."""


def predict_alone(costs: Costs, requests: Sequence[PlannedRequest]) -> dict[int, float]:
    """Seconds of each request by a cost table, by its number.

    Raises:
        ConfigurationError: A request leaves its size or steps to the server.
    """
    seconds = {}
    for request in requests:
        kind = request.kind
        if kind.width is None or kind.height is None or request.steps is None:
            raise ConfigurationError(
                f"the time alone of {request.group!r} can't be taken from a cost table: "
                "it needs a width, a height and steps"
            )
        job = Job(
            arrival_s=request.arrival_s,
            width=kind.width,
            height=kind.height,
            steps=request.steps,
            n=kind.n or 1,
        )
        seconds[request.number] = alone(costs, job)
    return seconds


def to_measure(requests: Sequence[PlannedRequest]) -> list[PlannedRequest]:
    """Those whose time alone says that of all: of each group one of the fewest steps, and one of
    the most.
    """
    chosen = {one.number: one for ends in _ends(requests).values() for one in ends}
    return list(chosen.values())


def spread_alone(
    requests: Sequence[PlannedRequest], measured: dict[int, float]
) -> Iterator[tuple[int, float]]:
    """Number and seconds of each request; within a group, seconds are linear in the steps.

    Args:
        requests: All of them.
        measured: Seconds of those that :func:`to_measure` names, by their numbers.
    """
    ends = _ends(requests)
    for request in requests:
        fewest, most = ends[request.group]
        seconds = measured[fewest.number]
        if request.steps is not None and fewest.steps != most.steps:
            assert fewest.steps is not None
            assert most.steps is not None
            place = (request.steps - fewest.steps) / (most.steps - fewest.steps)
            seconds += place * (measured[most.number] - seconds)
        yield request.number, seconds


def _ends(
    requests: Sequence[PlannedRequest],
) -> dict[str, tuple[PlannedRequest, PlannedRequest]]:
    """The first request of the fewest steps and of the most, of each group."""
    groups = defaultdict(list)
    for request in requests:
        groups[request.group].append(request)

    def steps(request: PlannedRequest) -> int:
        return request.steps or 0

    return {
        name: (min(members, key=steps), max(members, key=steps)) for name, members in groups.items()
    }
