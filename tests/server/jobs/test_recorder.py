"""What becomes of a job is written down, though the disk is full or the clock jumps."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from chairlift.engine.messages import Finished
from chairlift.errors import NumericalError, StorageFailed
from chairlift.server.jobs import pictures, recorder, schema
from chairlift.server.jobs.job import JobStatus
from chairlift.server.jobs.recorder import Recorder
from chairlift.server.jobs.store import JobStore
from tests.server.jobs.builders import TIMINGS, a_job, job_id, names, opened

DONE = Finished(request_id=job_id(1), images=[b"picture"], timings=TIMINGS)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long, neither for the database nor between two attempts."""
    monkeypatch.setattr(schema, "PRAGMAS", ("synchronous = FULL", "busy_timeout = 1"))
    monkeypatch.setattr(recorder, "FIRST_PAUSE_SECONDS", 0.01)


@asynccontextmanager
async def locked(folder: Path) -> AsyncIterator[None]:
    """While another process holds the database."""
    with closing(sqlite3.connect(folder / "jobs.sqlite3", isolation_level=None)) as operator:
        operator.execute("BEGIN EXCLUSIVE")
        yield
        operator.execute("ROLLBACK")


async def attempts(caplog: pytest.LogCaptureFixture, count: int) -> None:
    """Wait until so many have failed."""
    while caplog.text.count("it is tried again") < count:
        await asyncio.sleep(0.005)


def test_an_end_that_cannot_be_written_is_written_when_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def record() -> None:
        async with opened(tmp_path) as store:
            for number in (1, 2, 3):
                await store.add(a_job(number))
            keeper = Recorder(store)
            async with locked(tmp_path):
                ends = [
                    asyncio.create_task(keeper.succeed(a_job(1), DONE)),
                    asyncio.create_task(keeper.fail(a_job(2), NumericalError("not finite"))),
                    asyncio.create_task(keeper.cancel(a_job(3))),
                ]
                await attempts(caplog, 6)
                assert not any(end.done() for end in ends)
            jobs = await asyncio.gather(*ends)
            assert [job.status for job in jobs] == ["succeeded", "failed", "cancelled"]
            assert [await store.get(job.id) for job in jobs] == jobs
            assert store.picture(jobs[0], 0).read_bytes() == b"picture"

    asyncio.run(record())


def fill_the_disk(patch: pytest.MonkeyPatch) -> None:
    """The kernel refuses what is written to this file."""

    def open_on_full_disk(path: Path, mode: str) -> object:
        return open("/dev/full", "wb")

    patch.setattr(pictures, "open", open_on_full_disk, raising=False)


async def a_running_job(store: JobStore) -> None:
    await store.add(a_job(1))
    await store.start(job_id(1), 1.8e9)


def test_pictures_are_stored_when_there_is_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def record() -> None:
        async with opened(tmp_path) as store:
            await a_running_job(store)
            with monkeypatch.context() as patch:
                fill_the_disk(patch)
                end = asyncio.create_task(Recorder(store).succeed(await store.get(job_id(1)), DONE))
                await attempts(caplog, 2)
            assert (await end).status is JobStatus.SUCCEEDED

    asyncio.run(record())


def test_a_job_whose_pictures_find_no_room_for_long_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def record() -> None:
        async with opened(tmp_path) as store:
            await a_running_job(store)
            fill_the_disk(monkeypatch)
            job = await Recorder(store).succeed(await store.get(job_id(1)), DONE)
            assert (job.status, job.error and job.error.code) == ("failed", "storage_failed")
            assert str(tmp_path) not in str(job.error)
            assert names(tmp_path / "pictures") == []

    monkeypatch.setattr(recorder, "PATIENCE_SECONDS", 0.1)
    asyncio.run(record())


def test_who_gives_up_leaves_the_job_to_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def record() -> None:
        async with opened(tmp_path) as store:
            await a_running_job(store)
            keeper = Recorder(store)
            async with locked(tmp_path):
                end = asyncio.create_task(keeper.succeed(await store.get(job_id(1)), DONE))
                await attempts(caplog, 1)
                keeper.give_up()
                with pytest.raises(StorageFailed):
                    await end
        async with opened(tmp_path) as store:
            assert await store.unfinished() == [a_job(1)]

    asyncio.run(record())


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_times_never_run_backwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    async def record() -> None:
        async with opened(tmp_path) as store:
            job = a_job(1)
            await store.add(job)
            running = await Recorder(store).start(job)
            monkeypatch.setattr(time, "time", lambda: now + jump)
            done = await Recorder(store).succeed(running, DONE)
            assert job.created_at <= (done.started_at or 0) <= (done.finished_at or 0)

    now = time.time()
    asyncio.run(record())
