"""Which worker or replica a request goes to. Pure functions: what is known of the places comes in
as an argument, and so does chance.

The front end chooses among its workers, a cluster's router among its replicas and the simulator
among simulated ones by these very functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chairlift.request import GenerationRequest
from chairlift.scheduling.costs import Shape

AFFINITY_SHARE = 0.3
"""Backlogs that are longer than the least by at most this share of it count as equal. A share and
no number of seconds: an idle place is never passed over for a busy one. Chosen in the simulator:
on 64 replicas it is worth 12 to 22 % of the mean latency, and no wider one is much better."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What makes a request better company in one place than in another."""

    shape: Shape
    """Rows of one shape share forwards."""
    loras: frozenset[str]
    """Names of the LoRAs that it needs."""
    prompt: str
    """The prompt, or a digest of it."""

    @classmethod
    def of(cls, request: GenerationRequest) -> Traits:
        """Those of a request, with the prompt itself."""
        return cls(
            shape=Shape.of(request),
            loras=frozenset(lora.name for lora in request.loras),
            prompt=request.prompt,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """A worker or a replica, as far as is known of it."""

    backlog_seconds: float
    """Predicted seconds of work accepted and not done; 0 or more."""
    shapes: frozenset[Shape] = frozenset()
    """Of the requests that are there."""
    loras: frozenset[str] = frozenset()
    """Names of those that are loaded."""
    prompts: frozenset[str] = frozenset()
    """Those whose embeddings may be cached."""


def choose_place(places: Sequence[Place], traits: Traits | None = None) -> int:
    """The index of the place with the least backlog.

    Of those within :data:`AFFINITY_SHARE` of the least it is the one that lacks the fewest of the
    request's LoRAs, then one that has its shape, then one that knows its prompt, then the least,
    then the first.

    Args:
        places: At least one.
        traits: Of the request; None is one that is at home nowhere.

    Raises:
        ValueError: There are no places.
    """
    backlogs = [place.backlog_seconds for place in places]
    if not backlogs:
        raise ValueError("there are no places to choose from")
    least = min(backlogs)
    if traits is None:
        return backlogs.index(least)
    enough = least * (1 + AFFINITY_SHARE)
    near = [index for index, backlog in enumerate(backlogs) if backlog <= enough]
    return min(near, key=lambda index: (*_lacks(places[index], traits), backlogs[index]))


def _lacks(place: Place, traits: Traits) -> tuple[int, bool, bool]:
    """What a place doesn't have of what a request would like to find there."""
    return (
        len(traits.loras - place.loras),
        traits.shape not in place.shapes,
        traits.prompt not in place.prompts,
    )


def choose_fewest(requests: Sequence[int]) -> int:
    """The index of the place that has the fewest requests, the first of them.

    Raises:
        ValueError: There are no places.
    """
    if not requests:
        raise ValueError("there are no places to choose from")
    return requests.index(min(requests))


def pixel_steps(request: GenerationRequest) -> float:
    """How much work a request is, as far as that can be seen without a model: the pixels of all its
    steps, twice where they have classifier-free guidance.
    """
    pixels = request.width * request.height * request.frames
    entries = 2 if request.cfg_scale > 1 else 1
    return float(request.n * request.steps * pixels * entries)


class Chance(Protocol):
    """As much of :class:`random.Random` as is needed."""

    def randrange(self, stop: int, /) -> int:
        """One of the whole numbers below ``stop``."""


def two_choices(count: int, random: Chance) -> tuple[int, ...]:
    """The power of two choices: two different ones of ``count`` places, drawn; the better of them
    is nearly as good as the best of all (Mitzenmacher 2001), and only two must be asked. Of one
    place it is that one.

    Raises:
        ValueError: There are no places.
    """
    if count < 1:
        raise ValueError(f"there are {count} places to choose from; there must be at least 1")
    if count == 1:
        return (0,)
    first, second = random.randrange(count), random.randrange(count - 1)
    return first, second + (second >= first)


class RoundRobin:
    """One place after the other, whatever they have to do."""

    def __init__(self) -> None:
        self._turns = 0

    def __call__(self, count: int) -> int:
        """The index of the next one of ``count`` places.

        Raises:
            ValueError: There are no places.
        """
        if count < 1:
            raise ValueError(f"there are {count} places to choose from; there must be at least 1")
        turn = self._turns
        self._turns += 1
        return turn % count
