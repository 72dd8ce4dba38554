"""Who watches a job."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from chairlift.engine.ride import Ride
from chairlift.server.jobs.job import Job, JobStatus
from chairlift.server.jobs.live import LiveJob
from chairlift.server.jobs.view import JobAnswer, show_job
from tests.builders import create_card
from tests.server.jobs.builders import a_job


def show(job: Job) -> JobAnswer:
    return show_job(job, create_card(), {}, 0.0, 0.0)


def names(watch: Callable[[LiveJob], Awaitable[list[bytes]]]) -> list[str]:
    """Those of the events that a watcher of a queued job has read."""

    async def run() -> list[bytes]:
        loop = asyncio.get_running_loop()
        job = a_job()
        assert job.request is not None
        return await watch(LiveJob(job, Ride(job.request, loop.create_future(), 0.0), show))

    return [event.decode().split("\n")[0].removeprefix("event: ") for event in asyncio.run(run())]


def move(live: LiveJob, status: JobStatus) -> None:
    live.job = replace(live.job, status=status)


def test_only_changes_are_told() -> None:
    async def watch(live: LiveJob) -> list[bytes]:
        events = aiter(live.watch())
        seen = [await anext(events)]
        for status in (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.RUNNING):
            move(live, status)
            live.tell()
        move(live, JobStatus.SUCCEEDED)
        live.end()
        return seen + [event async for event in events]

    # The first is how it is; then it is told once for each status.
    assert names(watch) == ["job.updated"] * 3 + ["job.succeeded"]


@pytest.mark.parametrize(
    ("status", "last"),
    [
        (JobStatus.FAILED, "job.failed"),
        (JobStatus.CANCELLED, "job.cancelled"),
        (JobStatus.QUEUED, "job.updated"),
    ],
)
def test_who_comes_when_it_has_ended_sees_its_end(status: JobStatus, last: str) -> None:
    async def watch(live: LiveJob) -> list[bytes]:
        move(live, status)
        live.end()
        return [event async for event in live.watch()]

    assert names(watch) == [last]


def test_nothing_is_left_of_a_watcher_who_goes_away() -> None:
    async def watch(live: LiveJob) -> list[bytes]:
        events = live.watch()
        first = await anext(events)
        assert live.outboxes
        assert live.ride.listeners
        await events.aclose()
        assert not live.outboxes
        assert not live.ride.listeners
        return [first]

    assert names(watch) == ["job.updated"]
