"""A ride: a request that the engine owes, as the front end sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from chairlift.engine.messages import Finished, Preview, Rider
from chairlift.errors import RequestCancelled, RequestError
from chairlift.request import GenerationRequest

Listener = Callable[[Preview], None]
Outcome = Literal["finished", "failed", "cancelled", "kept"]
OUTCOMES: tuple[Outcome, ...] = ("finished", "failed", "cancelled", "kept")


@dataclass(slots=True)
class Ride:
    """One request, from the moment it is handed to the engine until it ends."""

    request: GenerationRequest
    answer: asyncio.Future[Finished]
    """Cancelling it cancels the request."""
    submitted: float
    """Seconds, on the event loop's clock."""
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the engine has the request in its queue."""
    predicted_s: float | None = None
    """In how many seconds it was predicted to be done when it was accepted; None before."""
    due: float | None = None
    """When it is predicted to be done, on the clock of ``submitted``; None until it is accepted."""
    is_streamed: bool = False
    """Whether the caller is sent events, and not one answer."""
    is_owed: bool = False
    """Whether its caller has been told that it is taken: from then on it isn't refused. Of a job
    that is so when it is written, of all others when the engine has them."""
    is_kept: bool = False
    """Whether it ends here only to go on when the server starts again."""
    listeners: set[Listener] = field(default_factory=set)
    """Told every preview."""
    steps: list[int] = field(default_factory=list)
    """Sampler steps that each image has behind it."""
    previews: dict[int, Preview] = field(default_factory=dict)
    """The last one of each image."""
    boarded: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once any image has been in a tick."""
    ticks: int = 0
    """How many ticks any image was in."""
    riders: int = 0
    """How many rows those ticks had in all."""
    most_riders: int = 0
    """How many rows the largest of them had."""
    crashes: int = 0
    """How often the worker died meanwhile."""

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """It is played again, from the beginning."""
        self.accepted.clear()
        self.boarded.clear()
        self.due = None
        self.steps = [0] * self.request.n

    @property
    def is_job(self) -> bool:
        """Whether it is a job's request."""
        return self.request.id.startswith("job_")

    @property
    def submission(self) -> GenerationRequest:
        """What an engine is sent."""
        return replace(self.request, is_promised=True) if self.is_owed else self.request

    @property
    def is_refused(self) -> bool:
        """Whether it has ended as a request that was not taken."""
        error = None if self.answer.cancelled() else self.answer.exception()
        return isinstance(error, RequestError) and error.is_refusal() and not self.is_owed

    @property
    def outcome(self) -> Outcome:
        """How it has ended; its answer must be done."""
        if self.is_kept:
            return "kept"
        if self.answer.cancelled() or isinstance(self.answer.exception(), RequestCancelled):
            return "cancelled"
        return "failed" if self.answer.exception() else "finished"

    def eta_s(self, now: float) -> float | None:
        """Predicted seconds until it is done."""
        return None if self.due is None else max(0.0, self.due - now)

    def accept(self, eta_s: float, now: float) -> None:
        """The engine has it in its queue."""
        self.due, self.predicted_s = now + eta_s, eta_s
        self.is_owed = self.is_owed or not self.is_job
        self.accepted.set()

    def finish(self, finished: Finished) -> None:
        """It has its pictures, unless it has ended before."""
        if not self.answer.done():
            self.answer.set_result(finished)

    def fail(self, error: RequestError) -> bool:
        """End it without pictures; whether it hadn't ended before."""
        if self.answer.done():
            return False
        error.after_acceptance = self.predicted_s is not None
        self.answer.set_exception(error)
        return True

    def show(self, preview: Preview) -> None:
        """One of its images can be seen."""
        image = preview.row.image
        self.previews[image] = preview
        self.steps[image] = max(self.steps[image], preview.step)
        for listener in list(self.listeners):
            listener(preview)

    def advance(self, rider: Rider) -> None:
        """One of its images was in a tick."""
        self.boarded.set()
        done = rider.step + 1
        self.steps[rider.row.image] = self.request.steps * done // rider.evaluations

    def count_tick(self, rows: int) -> None:
        """It was in a tick of so many rows."""
        self.ticks += 1
        self.riders += rows
        self.most_riders = max(self.most_riders, rows)

    async def reach(self, event: asyncio.Event) -> None:
        """Wait until ``accepted`` or ``boarded`` is set, or it has ended."""
        waiting = asyncio.ensure_future(event.wait())
        either: set[asyncio.Future[Any]] = {waiting, self.answer}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
