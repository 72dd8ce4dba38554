"""A berth: a place for one worker, what the worker there has to do, and how it is doing."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

import msgspec

from chairlift.engine.messages import (
    IDLE,
    Activity,
    Cancel,
    FromEngine,
    Loading,
    SetPolicy,
    encode,
)
from chairlift.engine.ride import Ride
from chairlift.engine.supervisor import Supervisor
from chairlift.engine.worker_config import WorkerConfig
from chairlift.request import GenerationRequest
from chairlift.scheduling.costs import Shape
from chairlift.scheduling.routing import Place, Traits, pixel_steps

RECENT_PROMPTS = 64
"""So many of the last prompts count as still known to the worker."""


class Keeper(Protocol):
    """Whose berth it is."""

    @property
    def config(self) -> WorkerConfig:
        """What the next worker is started with, but for its number."""

    def loading(self, berth: Berth, message: Loading) -> None:
        """Be told what a worker is loading."""

    def up(self, berth: Berth) -> None:
        """Be told that a worker takes requests from here on."""

    def receive(self, berth: Berth, message: FromEngine) -> None:
        """Get a message of a worker."""

    def down(self, berth: Berth) -> None:
        """Be told that a worker has ended, and is going to be replaced."""


class Berth:
    """One worker after the other, and the requests that the present one has.

    Args:
        number: Which of several it is.
        keeper: Is told what happens.
        hang_seconds: A worker that loads or has work, and says nothing for so long, is replaced.
    """

    def __init__(self, number: int, keeper: Keeper, hang_seconds: float) -> None:
        self.number = number
        self.supervisor = Supervisor(self, hang_seconds)
        self.activity = IDLE
        """The last report."""
        self.rides: dict[str, Ride] = {}
        """What the worker has, in the order in which it was sent."""
        self._keeper = keeper
        self._unreported: dict[str, float] = {}
        """Pixel-steps of the requests that aren't in the last report."""
        self._unreported_sum = 0.0
        self._shapes: Counter[Shape] = Counter()
        self._loras: Counter[str] = Counter()
        self._prompts: dict[str, None] = {}
        """The last ones, the latest at the end."""

    # ------------------------------------------------------------------ what it has to do

    def send(self, ride: Ride, frame: bytes) -> None:
        """Hand a request to the worker, which must be ready.

        Args:
            ride: Of the request.
            frame: Its Submit, encoded.
        """
        if not self.rides:
            self.supervisor.expect()
        request = ride.request
        self.rides[request.id] = ride
        self._count(request, 1)
        self._unreported[request.id] = size = pixel_steps(request)
        self._unreported_sum += size
        self._prompts.pop(request.prompt, None)
        self._prompts[request.prompt] = None
        if len(self._prompts) > RECENT_PROMPTS:
            del self._prompts[next(iter(self._prompts))]
        self.supervisor.send(frame)

    def remove(self, ride: Ride, cancel: bool) -> None:
        """A request has ended; the worker is told if it doesn't know."""
        request = ride.request
        del self.rides[request.id]
        self._count(request, -1)
        self._unreported_sum -= self._unreported.pop(request.id, 0.0)
        if cancel:
            self.supervisor.send(encode(Cancel(request_id=request.id)))

    def clear(self) -> list[Ride]:
        """Take everything away, as from a worker that has died."""
        rides = list(self.rides.values())
        self.rides, self._unreported, self._unreported_sum = {}, {}, 0.0
        self._shapes, self._loras, self._prompts = Counter(), Counter(), {}
        return rides

    def set_policy(self, name: str) -> None:
        """Serve in the order of this policy from the next tick on."""
        self.supervisor.send(encode(SetPolicy(name=name)))

    def last_to_begin(self) -> Ride | None:
        """Of those that haven't been in a tick the one that was sent last."""
        rides = reversed(self.rides.values())
        return next((ride for ride in rides if not ride.boarded.is_set()), None)

    def backlog(self, seconds: float) -> float:
        """Predicted seconds of work: what was last reported, and what was sent since.

        Args:
            seconds: What a pixel-step takes.
        """
        return self.activity.backlog_seconds + seconds * self._unreported_sum

    def place(self, traits: Traits, seconds: float) -> Place:
        """How it looks to a request.

        Args:
            traits: The request's.
            seconds: What a pixel-step takes.
        """
        return Place(
            backlog_seconds=self.backlog(seconds),
            # Nobody asks for others than its own.
            shapes=frozenset(shape for shape in (traits.shape,) if self._shapes[shape]),
            loras=frozenset(lora for lora in traits.loras if self._loras[lora]),
            prompts=frozenset({traits.prompt} & self._prompts.keys()),
        )

    def _count(self, request: GenerationRequest, step: int) -> None:
        wanted = Traits.of(request)
        self._shapes[wanted.shape] += step
        for lora in wanted.loras:
            self._loras[lora] += step

    # ------------------------------------------------------------------ what the supervisor says

    @property
    def config(self) -> WorkerConfig:
        """What the next worker is started with."""
        return msgspec.structs.replace(self._keeper.config, number=self.number)

    @property
    def has_work(self) -> bool:
        """Whether the worker owes anything."""
        return bool(self.rides)

    def loading(self, message: Loading) -> None:
        """The worker is loading."""
        self._keeper.loading(self, message)

    def up(self) -> None:
        """A new worker, which has nothing yet."""
        self.set_policy(self._keeper.config.policy)  # It may have changed since it was started.
        self._keeper.up(self)

    def receive(self, message: FromEngine) -> None:
        """The worker has said something."""
        if isinstance(message, Activity):
            message = self._take_in(message)
        self._keeper.receive(self, message)

    def down(self) -> None:
        """The worker has ended."""
        self.activity = IDLE
        self._keeper.down(self)

    def _take_in(self, report: Activity) -> Activity:
        """The report, whose ticks say whose they are."""
        # What was accepted before is in its backlog.
        self._unreported = {
            id: size
            for id, size in self._unreported.items()
            if not self.rides[id].accepted.is_set()
        }
        self._unreported_sum = sum(self._unreported.values())
        ticks = [msgspec.structs.replace(tick, worker=self.number) for tick in report.ticks]
        self.activity = msgspec.structs.replace(report, ticks=ticks)
        return self.activity
