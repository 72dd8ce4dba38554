from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from chairlift.errors import ConfigurationError, IllegalTransition, StorageFailed, UnknownJob
from chairlift.server.jobs import pictures, schema
from chairlift.server.jobs.data_dir import DataDir
from chairlift.server.jobs.job import Job, JobStatus
from chairlift.server.jobs.store import Added, JobStore
from tests.running import wait_until
from tests.server.jobs.builders import ERROR, TIMINGS, a_job, add_succeeded, job_id, names, opened


def change(folder: Path, statement: str, *parameters: object) -> None:
    """Behind the store's back."""
    with closing(sqlite3.connect(folder / "jobs.sqlite3")) as connection:
        connection.execute(statement, parameters)
        connection.commit()


# --- A job's life


def test_a_job_is_read_as_it_was_added(tmp_path: Path) -> None:
    job = a_job(1, user="Zoë", key="key", digest=b"\x00\xff")

    async def add_and_read() -> None:
        async with opened(tmp_path) as store:
            assert await store.add(job) == Added(job, True)
            assert await store.get(job.id) == job
            assert await store.find("key") == job
            assert await store.find("another") is None
        async with opened(tmp_path) as store:
            assert await store.get(job.id) == job

    asyncio.run(add_and_read())


def test_a_job_that_succeeds_has_its_pictures(tmp_path: Path) -> None:
    async def succeed() -> None:
        async with opened(tmp_path) as store:
            await store.add(a_job(1))
            running = await store.start(job_id(1), 5.5)
            assert running == replace(a_job(1), status=JobStatus.RUNNING, started_at=5.5)
            done = await store.succeed(job_id(1), [b"one", b"three"], TIMINGS, 7.25)
            assert done == replace(
                running,
                status=JobStatus.SUCCEEDED,
                finished_at=7.25,
                timings=TIMINGS,
                images=2,
                picture_bytes=8,
            )
        async with opened(tmp_path) as store:
            assert await store.get(job_id(1)) == done
            assert [store.picture(done, i).read_bytes() for i in range(2)] == [b"one", b"three"]
            with pytest.raises(ValueError, match="has 2 pictures, and no number 2"):
                store.picture(done, 2)

    asyncio.run(succeed())


def test_a_job_that_ends_otherwise_has_none(tmp_path: Path) -> None:
    async def end() -> None:
        async with opened(tmp_path) as store:
            for number in (1, 2):
                await store.add(a_job(number))
            failed = await store.fail(job_id(1), ERROR, 7.0)
            assert (failed.status, failed.error, failed.finished_at) == ("failed", ERROR, 7.0)
            cancelled = await store.cancel(job_id(2), 8.0)
            assert (cancelled.status, cancelled.error) == ("cancelled", None)
            for job in (failed, cancelled):
                assert await store.get(job.id) == job
                with pytest.raises(ValueError, match="has 0 pictures"):
                    store.picture(job, 0)

    asyncio.run(end())


def test_a_job_that_has_ended_stays_as_it_is(tmp_path: Path) -> None:
    async def move_on() -> None:
        async with opened(tmp_path) as store:
            done = await add_succeeded(store, 1)
            for move in (
                store.start(done.id, 9.0),
                store.succeed(done.id, [b"another"], TIMINGS, 9.0),
                store.fail(done.id, ERROR, 9.0),
                store.cancel(done.id, 9.0),
            ):
                with pytest.raises(IllegalTransition, match="from succeeded to"):
                    await move
            assert await store.get(done.id) == done
            assert store.picture(done, 0).read_bytes() == b"picture"

    asyncio.run(move_on())


NO_JOBS = [job_id(9), "job_9", "", "../lock", pytest.param("\udc80", id="bytes"), 1000 * "x"]


@pytest.mark.parametrize("id", NO_JOBS)
def test_a_job_that_is_not_there_is_unknown(tmp_path: Path, id: str) -> None:
    async def ask() -> None:
        async with opened(tmp_path) as store:
            for question in (
                store.get(id),
                store.start(id, 1.0),
                store.succeed(id, [b"picture"], TIMINGS, 1.0),
                store.fail(id, ERROR, 1.0),
                store.cancel(id, 1.0),
            ):
                with pytest.raises(UnknownJob, match="there is no job") as unknown:
                    await question
                assert len(unknown.value.message) < 200
            assert names(tmp_path / "pictures") == []

    asyncio.run(ask())


def test_only_a_new_job_can_be_added(tmp_path: Path) -> None:
    async def add() -> None:
        async with opened(tmp_path) as store:
            await store.add(a_job(1))
            with pytest.raises(ValueError, match="already"):
                await store.add(a_job(1))
            for job in (
                replace(a_job(2), request=None),
                replace(a_job(2), status=JobStatus.RUNNING),
            ):
                with pytest.raises(ValueError, match="is queued and has a request"):
                    await store.add(job)

    asyncio.run(add())


def test_statistics_count_every_status(tmp_path: Path) -> None:
    async def count() -> None:
        async with opened(tmp_path) as store:
            assert set((await store.statistics()).jobs.values()) == {0}
            for number in (1, 2):
                await add_succeeded(store, number, images=(b"123", b"45"))
            for number in (3, 4, 5):
                await store.add(a_job(number))
            await store.start(job_id(3), 1.0)
            statistics = await store.statistics()
            assert statistics.jobs == {
                "queued": 2,
                "running": 1,
                "succeeded": 2,
                "failed": 0,
                "cancelled": 0,
            }
            assert statistics.picture_bytes == 10

    asyncio.run(count())


# --- Many at once


def test_equal_keys_make_one_job(tmp_path: Path) -> None:
    async def add() -> None:
        async with opened(tmp_path) as store:
            jobs = [a_job(n, key="k", digest=bytes([n])) for n in range(20)]
            added = await asyncio.gather(*(store.add(job) for job in jobs))
            assert [is_new for _, is_new in added] == [True] + 19 * [False]
            assert {job for job, _ in added} == {jobs[0]}
            assert await store.add(a_job(21, key="another")) == Added(
                a_job(21, key="another"), True
            )
            assert [job.id for job in await store.unfinished()] == [job_id(0), job_id(21)]

    asyncio.run(add())


def test_of_two_ends_at_once_one_is_true(tmp_path: Path) -> None:
    async def end() -> None:
        async with opened(tmp_path) as store:
            for number in range(20):
                await store.add(a_job(number))
                await store.start(job_id(number), 1.0)
                ends = await asyncio.gather(
                    store.succeed(job_id(number), [b"picture"], TIMINGS, 2.0),
                    store.succeed(job_id(number), [b"another"], TIMINGS, 2.0),
                    store.cancel(job_id(number), 2.0),
                    return_exceptions=True,
                )
                assert sum(isinstance(end, Job) for end in ends) == 1, ends
                assert sum(isinstance(end, IllegalTransition) for end in ends) == 2, ends
                job = await store.get(job_id(number))
                has_folder = (tmp_path / "pictures" / job.id).exists()
                assert has_folder == (job.status is JobStatus.SUCCEEDED)

    asyncio.run(end())


def test_reading_does_not_wait_for_writing(tmp_path: Path) -> None:
    async def read_meanwhile() -> None:
        async with opened(tmp_path) as store:
            await store.add(a_job(1))
            operator = sqlite3.connect(tmp_path / "jobs.sqlite3", isolation_level=None)
            with closing(operator):
                operator.execute("BEGIN IMMEDIATE")
                adding = asyncio.create_task(store.add(a_job(2)))
                for _ in range(10):
                    assert (await store.get(job_id(1))).id == job_id(1)
                    assert len((await store.page(limit=5)).jobs) == 1
                assert not adding.done()
                operator.execute("ROLLBACK")
            assert (await adding).is_new

    asyncio.run(read_meanwhile())


def test_a_write_is_carried_through_without_its_caller(tmp_path: Path) -> None:
    async def leave() -> None:
        with DataDir.open(tmp_path) as data_dir:
            store = await JobStore.open(data_dir)
            await store.add(a_job(1))
            await store.start(job_id(1), 1.0)
            callers = [
                asyncio.create_task(store.add(a_job(2))),
                asyncio.create_task(store.succeed(job_id(1), [b"picture"], TIMINGS, 2.0)),
            ]
            await asyncio.sleep(0)
            for caller in callers:
                caller.cancel()
            await asyncio.wait(callers)
            assert all(caller.cancelled() for caller in callers)
            await store.close()
        async with opened(tmp_path) as store:
            done = await store.get(job_id(1))
            assert store.picture(done, 0).read_bytes() == b"picture"
            assert (await store.get(job_id(2))).status is JobStatus.QUEUED

    asyncio.run(leave())


def test_closing_finishes_what_was_called_and_ends_all_threads(tmp_path: Path) -> None:
    async def close() -> None:
        with DataDir.open(tmp_path) as data_dir:
            store = await JobStore.open(data_dir)
            adding = [asyncio.create_task(store.add(a_job(number))) for number in range(20)]
            await asyncio.sleep(0)
            await store.close()
            assert all(added.is_new for added in await asyncio.gather(*adding))
            await store.close()
        assert not (tmp_path / "jobs.sqlite3-wal").exists()

    before = set(threading.enumerate())
    asyncio.run(close())
    # They end just after they have said it.
    wait_until(lambda: set(threading.enumerate()) == before)


def test_a_key_is_its_owners(tmp_path: Path) -> None:
    async def add() -> None:
        async with opened(tmp_path) as store:
            jobs = [a_job(n, key="k", owner=owner) for n, owner in enumerate(("", "one", "two"))]
            for job in jobs:
                assert await store.add(job) == Added(job, True)
            for job in jobs:
                assert await store.find("k", job.owner) == job
                assert await store.add(replace(job, id=job_id(9))) == Added(job, False)
            assert await store.find("k", "three") is None

    asyncio.run(add())


# --- After a restart


def test_what_was_not_finished_waits_again_in_the_same_order(tmp_path: Path) -> None:
    async def restart() -> None:
        async with opened(tmp_path) as store:
            for number in (3, 1, 2, 5, 4):
                await store.add(a_job(number))
            for number in (1, 2):
                await store.start(job_id(number), 1.0)
            await store.cancel(job_id(5), 2.0)
            assert len(await store.unfinished()) == 4
        async with opened(tmp_path) as store:
            assert await store.unfinished() == [a_job(number) for number in (3, 1, 2, 4)]
            assert (await store.start(job_id(1), 9.0)).started_at == 9.0

    asyncio.run(restart())


def test_pictures_whose_job_has_not_succeeded_are_removed_at_the_start(tmp_path: Path) -> None:
    async def restart() -> None:
        async with opened(tmp_path) as store:
            done = await add_succeeded(store, 1)
            await store.add(a_job(2))
            for name in (job_id(2), job_id(3), f"{job_id(4)}.draft"):
                (tmp_path / "pictures" / name).mkdir()
                (tmp_path / "pictures" / name / "0.png").write_bytes(b"half")
        async with opened(tmp_path) as store:
            assert names(tmp_path / "pictures") == [job_id(1), f"{job_id(1)}/0.png"]
            assert store.picture(done, 0).read_bytes() == b"picture"

    asyncio.run(restart())


def stored_request(folder: Path, number: int) -> dict[str, object]:
    with closing(sqlite3.connect(folder / "jobs.sqlite3")) as connection:
        query = "SELECT request FROM jobs WHERE id = ?"
        [document] = connection.execute(query, (job_id(number),)).fetchone()
    request: dict[str, object] = json.loads(document)
    return request


def test_an_unfinished_job_that_cannot_be_read_has_failed_with_the_reason(tmp_path: Path) -> None:
    async def add() -> None:
        async with opened(tmp_path) as store:
            for number in range(5):
                await store.add(a_job(number))
            await store.start(job_id(1), 1.0)

    async def read() -> None:
        async with opened(tmp_path) as store:
            assert [job.id for job in await store.unfinished()] == [job_id(0)]
            reasons = []
            for number in (1, 2, 3, 4):
                job = await store.get(job_id(number))
                assert (job.status, job.error and job.error.code) == ("failed", "storage_failed")
                assert job.error is not None
                assert job.finished_at is not None
                reasons.append(job.error.message)
            assert "'strength' is unknown" in reasons[0]
            assert "required field `steps`" in reasons[1]
            assert "Expected `int`, got `str` - at `$.seed`" in reasons[2]
            assert "Input data was truncated" in reasons[3]
            assert len((await store.page(limit=9)).jobs) == 5

    asyncio.run(add())
    whole = stored_request(tmp_path, 1)
    for number, document in (
        (1, json.dumps(whole | {"strength": 0.5})),
        (2, json.dumps({field: whole[field] for field in whole if field != "steps"})),
        (3, json.dumps(whole | {"seed": "one"})),
        (4, "{"),
    ):
        change(tmp_path, "UPDATE jobs SET request = ? WHERE id = ?", document, job_id(number))
    asyncio.run(read())


def test_a_finished_job_that_cannot_be_read_still_has_its_pictures(tmp_path: Path) -> None:
    async def succeed() -> Job:
        async with opened(tmp_path) as store:
            return await add_succeeded(store, 1)

    async def read() -> None:
        async with opened(tmp_path) as store:
            job = await store.get(done.id)
            assert job == replace(done, request=None, timings=None)
            assert store.picture(job, 0).read_bytes() == b"picture"
            assert await store.remove_expired(3e9, max_bytes=0) == [done.id]

    done = asyncio.run(succeed())
    change(tmp_path, """UPDATE jobs SET request = '{"prompt": "a boat"}', timings = '{}'""")
    asyncio.run(read())


def test_a_power_failure_while_sqlite_tidies_up_loses_nothing(tmp_path: Path) -> None:
    database, log = tmp_path / "jobs.sqlite3", tmp_path / "jobs.sqlite3-wal"

    async def add() -> tuple[bytes, bytes]:
        async with opened(tmp_path) as store:
            for number in range(50):
                await store.add(a_job(number))
            return database.read_bytes(), log.read_bytes()

    async def read() -> list[Job]:
        async with opened(tmp_path) as store:
            return await store.unfinished()

    old, logged = asyncio.run(add())
    # Of what SQLite has copied from its log, only the first page has come to the disk.
    database.write_bytes(database.read_bytes()[:4096] + old[4096:])
    log.write_bytes(logged)
    assert asyncio.run(read()) == [a_job(number) for number in range(50)]


# --- A disk that is full or fails


def test_pictures_that_do_not_fit_leave_the_job_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_on_full_disk(path: Path, mode: str) -> object:
        return open("/dev/full", "wb")  # The kernel refuses what is written to it.

    async def succeed() -> None:
        async with opened(tmp_path) as store:
            await store.add(a_job(1))
            await store.start(job_id(1), 1.0)
            with monkeypatch.context() as patch:
                patch.setattr(pictures, "open", open_on_full_disk, raising=False)
                with pytest.raises(StorageFailed, match=os.strerror(errno.ENOSPC)):
                    await store.succeed(job_id(1), [b"picture"], TIMINGS, 2.0)
            assert (await store.get(job_id(1))).status is JobStatus.RUNNING
            assert names(tmp_path / "pictures") == []
            assert (await store.fail(job_id(1), ERROR, 2.0)).status is JobStatus.FAILED

    asyncio.run(succeed())


def test_a_job_that_does_not_fit_is_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledged = []

    async def add_many(store: JobStore) -> None:
        for number in range(1000):
            await store.add(a_job(number))
            acknowledged.append(job_id(number))

    async def fill() -> None:
        async with opened(tmp_path) as store:
            with pytest.raises(StorageFailed, match="can't be stored: the disk is full"):
                await add_many(store)
            with pytest.raises(UnknownJob):
                await store.get(job_id(len(acknowledged)))

    async def read() -> list[str]:
        async with opened(tmp_path) as store:
            return [job.id for job in await store.unfinished()]

    with monkeypatch.context() as patch:
        # SQLite's own error for a database that may not grow.
        patch.setattr(schema, "PRAGMAS", (*schema.PRAGMAS, "max_page_count = 20"))
        asyncio.run(fill())
    assert acknowledged
    assert asyncio.run(read()) == acknowledged


def test_a_success_that_cannot_be_written_leaves_no_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def succeed() -> None:
        async with opened(tmp_path) as store:
            await store.add(a_job(1))
            await store.start(job_id(1), 1.0)
            with closing(sqlite3.connect(tmp_path / "jobs.sqlite3")) as operator:
                operator.execute("BEGIN IMMEDIATE")
                with pytest.raises(StorageFailed, match="can't be stored: the database is locked"):
                    await store.succeed(job_id(1), [b"picture"], TIMINGS, 2.0)
            assert names(tmp_path / "pictures") == []
            assert (await store.get(job_id(1))).status is JobStatus.RUNNING
            await store.succeed(job_id(1), [b"picture"], TIMINGS, 2.0)

    monkeypatch.setattr(schema, "PRAGMAS", ("synchronous = FULL", "busy_timeout = 1"))
    asyncio.run(succeed())


def test_a_database_that_breaks_meanwhile_is_told(tmp_path: Path) -> None:
    async def read() -> None:
        async with opened(tmp_path) as store:
            change(tmp_path, "DROP TABLE jobs")
            with pytest.raises(StorageFailed, match="can't be read"):
                await store.get(job_id(1))
            with pytest.raises(StorageFailed, match="can't be stored"):
                await store.add(a_job(1))

    asyncio.run(read())


def test_a_folder_that_cannot_be_cleaned_up_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    async def start() -> None:
        async with opened(tmp_path):
            pass

    (tmp_path / "pictures" / job_id(1)).mkdir(parents=True)
    before = set(threading.enumerate())
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        with pytest.raises(
            ConfigurationError, match="can't be cleaned up: Operation not permitted"
        ):
            asyncio.run(start())
    wait_until(lambda: set(threading.enumerate()) == before)
    asyncio.run(start())
    assert names(tmp_path / "pictures") == []
