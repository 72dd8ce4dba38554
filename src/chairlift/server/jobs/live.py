"""A job that has not ended, and those who watch it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import msgspec

from chairlift.engine.messages import Preview
from chairlift.engine.ride import Ride
from chairlift.server.events import Outbox, format_event
from chairlift.server.jobs.job import Job
from chairlift.server.jobs.view import JobAnswer, JobEvent, JobPartialImage
from chairlift.server.partials import Partials
from chairlift.server.schema import PartialImage


@dataclass(slots=True)
class LiveJob:
    """One job, from when it is written down until its end is."""

    job: Job
    """As it was written last."""
    ride: Ride
    show: Callable[[Job], JobAnswer]
    """What callers are shown of a job now."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when no more will be written of it, at least until the server starts again."""
    outboxes: set[Outbox] = field(default_factory=set)
    """Of those who watch it."""
    told: JobAnswer | None = None
    """What they were told last."""

    def tell(self) -> None:
        """Tell those who watch it what has changed."""
        if not self.outboxes:
            return
        answer = self.show(self.job)
        if self.told is None or _changes(answer) != _changes(self.told):
            self.told = answer
            for outbox in self.outboxes:
                outbox.put(_job_event("job.updated", answer), missable=True)

    def end(self) -> None:
        """Tell how it has ended; nobody watches it any more."""
        self.ended.set()
        for outbox in self.outboxes:
            outbox.put(last_event(self.show(self.job)))
            outbox.close()

    async def watch(self) -> AsyncGenerator[bytes]:
        """Its events, from how it is now to its end."""
        if self.ended.is_set():
            yield last_event(self.show(self.job))
            return
        outbox, partials = Outbox(), Partials(self.ride.request)

        def show(preview: Preview) -> None:
            if partial := partials.number(preview):
                outbox.put(_partial_event(partial), missable=True)

        outbox.put(_job_event("job.updated", self.show(self.job)))
        for preview in self.ride.previews.values():
            show(preview)
        self.outboxes.add(outbox)
        self.ride.listeners.add(show)
        try:
            async for event in outbox:
                yield event
        finally:
            self.outboxes.discard(outbox)
            self.ride.listeners.discard(show)


def last_event(answer: JobAnswer) -> bytes:
    """How a job has ended, or how it is left until the server starts again."""
    name = answer.status.value if answer.status.is_terminal else "updated"
    return _job_event(f"job.{name}", answer)


def _job_event(name: str, answer: JobAnswer) -> bytes:
    return format_event(JobEvent(type=name, job=answer), name)


def _changes(answer: JobAnswer) -> tuple[object, ...]:
    return answer.status, answer.progress, answer.position


def _partial_event(partial: PartialImage) -> bytes:
    event = JobPartialImage(**msgspec.structs.asdict(partial))
    return format_event(event, "job.partial_image")
