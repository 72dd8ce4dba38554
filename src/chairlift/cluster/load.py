"""How busy a replica is, and who would feel at home there: what its router is told.

The predicted seconds come from the engine. Of a request that the engine doesn't know yet, only its
size is known, in pixel-steps. What one of them takes is seen in the backlog.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from chairlift.engine.client import EngineClient
from chairlift.engine.messages import Activity
from chairlift.engine.ride import Ride
from chairlift.request import GenerationRequest
from chairlift.scheduling.costs import Shape
from chairlift.scheduling.routing import Place, Traits, pixel_steps

RECENT = 64
"""So many of the last requests count as still at home."""
NEWEST = 32
"""So many of the last requests are named, so that routers needn't count them twice."""


class Load:
    """That of one engine.

    Args:
        client: The engine's.
    """

    def __init__(self, client: EngineClient) -> None:
        self._client = client
        self._seconds_per_pixel_step = 0.0
        self._prompts: deque[str] = deque(maxlen=RECENT)
        client.listen(self._look)
        client.on_end.append(self._remember)

    def describe(self) -> dict[str, Any]:
        """Plain values, which :func:`read_load` understands."""
        rides = self._client.rides.values()
        requests = [ride.request for ride in rides]
        accepted = [ride.request.id for ride in rides if ride.accepted.is_set()]
        return {
            "is_ready": self._client.is_ready,
            "backlog_seconds": self._client.activity.backlog_seconds,
            "seconds_per_pixel_step": self._seconds_per_pixel_step,
            "newest": [digest(id) for id in accepted[-NEWEST:]],
            "shapes": sorted({(one.width, one.height, one.frames) for one in requests}),
            "loras": sorted({lora.name for one in requests for lora in one.loras}),
            "prompts": sorted({*self._prompts, *(digest(one.prompt) for one in requests)}),
        }

    def _look(self, activity: Activity) -> None:
        """Learn what a pixel-step takes, from requests that the engine has predicted."""
        pending = sum(_remaining(ride) for ride in self._client.rides.values())
        if pending and activity.backlog_seconds:
            self._seconds_per_pixel_step = activity.backlog_seconds / pending

    def _remember(self, ride: Ride) -> None:
        self._prompts.append(digest(ride.request.prompt))


def read_load(told: Mapping[str, Any], unseen_seconds: float = 0.0) -> Place | None:
    """What a replica has told, as a place to choose; None if it hasn't told anything, or its engine
    is just being replaced.

    Args:
        told: What :meth:`Load.describe` has returned there.
        unseen_seconds: Of work that has been sent there since then.
    """
    if not told or not told["is_ready"]:
        return None
    return Place(
        backlog_seconds=told["backlog_seconds"] + unseen_seconds,
        shapes=frozenset(Shape(*shape) for shape in told["shapes"]),
        loras=frozenset(told["loras"]),
        prompts=frozenset(told["prompts"]),
    )


def traits(request: GenerationRequest) -> Traits:
    """What makes a request better company in one replica than in another."""
    return replace(Traits.of(request), prompt=digest(request.prompt))


def digest(text: str) -> str:
    """Stands for a prompt, which isn't told around, or for a long id."""
    # Lone surrogates are refused long before.
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _remaining(ride: Ride) -> float:
    steps = ride.request.n * ride.request.steps
    return pixel_steps(ride.request) * (1 - sum(ride.steps) / steps)
