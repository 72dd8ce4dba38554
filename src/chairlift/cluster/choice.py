"""Which replica a request goes to, from what the replicas have told a moment ago.

What was sent since then is added. Replicas that have told nothing are chosen among by the power of
two choices.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from chairlift.cluster.load import digest, read_load, traits
from chairlift.request import GenerationRequest
from chairlift.scheduling.routing import choose_place, pixel_steps, two_choices

STATS_PERIOD_SECONDS = 1.0
"""How often replicas are asked."""
UNSEEN_SECONDS = 2 * STATS_PERIOD_SECONDS
"""After so long, at the latest, a request that was sent is in what its replica tells."""

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Sent(Generic[R]):
    id: str
    """A digest of the request's."""
    replica: R
    size: float
    when: float


class Choice(Generic[R]):
    """Remembers what it has chosen for requests that replicas may not have told of yet.

    Args:
        chance: For the power of two choices.
    """

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()
        self._sent: dict[str, _Sent[R]] = {}
        """By the call's id."""

    def rank(
        self, told: Mapping[R, Mapping[str, Any]], call: str, request: GenerationRequest, now: float
    ) -> list[list[R]]:
        """The best replica, and then two others: of these the emptier one may do if the best is
        full by now.

        Args:
            told: What each replica has told, see :meth:`chairlift.cluster.load.Load.describe`;
                at least one replica.
            call: The same again is the same request, which is sent elsewhere now.
            request: What is asked of the replica.
            now: Seconds, on a clock that only goes forward.
        """
        self._forget(call, told, now)
        pace = _pace(told.values())
        places = {
            replica: place
            for replica, load in told.items()
            if (place := read_load(load, pace * self._size(replica))) is not None
        }
        if not places:
            return [self.draw(list(told))]
        known = list(places)
        best = known[choose_place(list(places.values()), traits(request))]
        self._sent[call] = _Sent(digest(request.id), best, pixel_steps(request), now)
        others = [replica for replica in told if replica != best]
        return [[best], self.draw(others)] if others else [[best]]

    def draw(self, replicas: list[R]) -> list[R]:
        """Two of them."""
        return [replicas[index] for index in two_choices(len(replicas), self._chance)]

    def end(self, call: str) -> None:
        """A request has ended."""
        self._sent.pop(call, None)

    def _forget(self, call: str, told: Mapping[R, Mapping[str, Any]], now: float) -> None:
        """Those that replicas have told of by now, and those sent long ago."""
        self.end(call)
        newest = {replica: load["newest"] for replica, load in told.items() if load}
        self._sent = {
            call: sent
            for call, sent in self._sent.items()
            if now - sent.when < UNSEEN_SECONDS and sent.id not in newest.get(sent.replica, ())
        }

    def _size(self, replica: R) -> float:
        """Pixel-steps that it may not have told of."""
        return sum(sent.size for sent in self._sent.values() if sent.replica == replica)


def _pace(told: Iterable[Mapping[str, Any]]) -> float:
    """Seconds that a pixel-step takes, by those who know it. If nobody does, nobody has had any
    work, and any number tells who was sent more.
    """
    paces = [load["seconds_per_pixel_step"] for load in told if load]
    known = [pace for pace in paces if pace > 0]
    return sum(known) / len(known) if known else 1.0
