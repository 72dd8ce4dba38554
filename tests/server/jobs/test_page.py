from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chairlift.errors import InvalidRequest
from chairlift.server.jobs.job import Job, JobStatus
from chairlift.server.jobs.page_query import page_query
from chairlift.server.jobs.store import JobStore
from tests.server.jobs.builders import ERROR, a_job, add_succeeded, job_id, opened


def numbers(jobs: list[Job]) -> list[int]:
    return [int(job.id.removeprefix("job_"), 16) for job in jobs]


async def read_all(store: JobStore, **filters: Any) -> list[int]:
    """All pages, three jobs each."""
    found: list[Job] = []
    has_more = True
    while has_more:
        after = found[-1].id if found else None
        jobs, has_more = await store.page(limit=3, after=after, **filters)
        assert len(jobs) == 3 or not has_more
        found += jobs
    return numbers(found)


async def fill(store: JobStore) -> None:
    """Jobs 0 to 11: the even ones of Ada, the odd ones of Bob; each third has failed."""
    for number in range(12):
        await store.add(a_job(number, user=("ada", "bob")[number % 2]))
        if number % 3 == 0:
            await store.fail(job_id(number), ERROR, 2e9)
    await store.start(job_id(10), 2e9)


def in_store(folder: Path, work: Any) -> Any:
    async def run() -> Any:
        async with opened(folder) as store:
            await fill(store)
            coroutine: Coroutine[Any, Any, Any] = work(store)
            return await coroutine

    return asyncio.run(run())


def test_pages_go_from_the_newest_to_the_oldest(tmp_path: Path) -> None:
    assert in_store(tmp_path, read_all) == list(range(11, -1, -1))


def test_an_empty_store_has_one_empty_page(tmp_path: Path) -> None:
    async def read() -> None:
        async with opened(tmp_path) as store:
            assert await store.page(limit=5) == ([], False)

    asyncio.run(read())


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"statuses": [JobStatus.FAILED]}, [9, 6, 3, 0]),
        ({"statuses": [JobStatus.RUNNING, JobStatus.FAILED]}, [10, 9, 6, 3, 0]),
        ({"statuses": [JobStatus.SUCCEEDED]}, []),
        ({"statuses": []}, []),
        ({"user": "ada"}, [10, 8, 6, 4, 2, 0]),
        ({"user": "ada", "statuses": [JobStatus.FAILED]}, [6, 0]),
        ({"user": "ada", "statuses": set(JobStatus)}, [10, 8, 6, 4, 2, 0]),
        ({"user": "' OR 1=1 --"}, []),
    ],
)
def test_pages_are_of_some_statuses_and_of_a_user(
    tmp_path: Path, filters: dict[str, Any], expected: list[int]
) -> None:
    assert in_store(tmp_path, lambda store: read_all(store, **filters)) == expected


def test_pages_are_of_an_owner(tmp_path: Path) -> None:
    async def read(store: JobStore) -> None:
        for number in range(20, 24):
            await store.add(a_job(number, user="ada", owner=("one", "two")[number % 2]))
        assert await read_all(store, owner="one") == [22, 20]
        assert await read_all(store, owner="two", user="ada") == [23, 21]
        assert await read_all(store, owner="three") == []
        with pytest.raises(InvalidRequest, match="after: there is no job"):
            await store.page(limit=5, after=job_id(21), owner="one")

    in_store(tmp_path, read)


def test_pages_stay_while_jobs_are_added(tmp_path: Path) -> None:
    async def read_and_add(store: JobStore) -> list[int]:
        first = await store.page(limit=5)
        # Even with an equal time of creation, or an earlier one, they are newer.
        await asyncio.gather(*(store.add(a_job(number)) for number in range(12, 40)))
        second = await store.page(limit=5, after=first.jobs[-1].id)
        await store.add(a_job(40))
        third = await store.page(limit=5, after=second.jobs[-1].id)
        assert (first.has_more, second.has_more, third.has_more) == (True, True, False)
        return numbers([*first.jobs, *second.jobs, *third.jobs])

    assert in_store(tmp_path, read_and_add) == list(range(11, -1, -1))


def test_a_clock_that_was_set_back_does_not_change_the_order(tmp_path: Path) -> None:
    async def add_downwards() -> list[int]:
        async with opened(tmp_path) as store:
            for number in (5, 3, 4):
                await store.add(a_job(number))
            return await read_all(store)

    assert asyncio.run(add_downwards()) == [4, 3, 5]


@pytest.mark.parametrize("after", [job_id(99), "job_1", "", "x" * 1000])
def test_a_cursor_that_is_no_job_is_refused(tmp_path: Path, after: str) -> None:
    async def read(store: JobStore) -> None:
        with pytest.raises(InvalidRequest, match="after: there is no job") as refusal:
            await store.page(limit=5, after=after)
        assert refusal.value.param == "after"
        assert len(refusal.value.message) < 200

    in_store(tmp_path, read)


def test_a_limit_below_one_is_refused(tmp_path: Path) -> None:
    async def read(store: JobStore) -> None:
        with pytest.raises(ValueError, match="limit is 0"):
            await store.page(limit=0)

    in_store(tmp_path, read)


@pytest.mark.parametrize("owner", [None, "key"])
@pytest.mark.parametrize("user", [None, "ada"])
@pytest.mark.parametrize("statuses", [None, [JobStatus.FAILED], set(JobStatus)])
def test_a_page_is_read_by_an_index(
    tmp_path: Path, statuses: list[JobStatus] | None, user: str | None, owner: str | None
) -> None:
    in_store(tmp_path, lambda store: add_succeeded(store, 100))
    sql, parameters = page_query(limit=20, before=9, statuses=statuses, user=user, owner=owner)
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite3")) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
    steps = [step[-1] for step in plan]
    reads = [step for step in steps if " jobs" in step]
    assert len(reads) == (len(statuses or JobStatus) if statuses or user or owner else 1)
    assert all(step.startswith("SEARCH jobs USING") for step in reads), steps
    columns = ["owner"] * bool(owner) + ["user"] * bool(user)
    if columns or statuses:
        columns.append("status")
    expected = f"({' AND '.join(f'{column}=?' for column in columns)} AND rowid<?)"
    expected = expected.replace("( AND ", "(")
    assert all(step.endswith(expected) for step in reads), steps
    assert not any("TEMP B-TREE" in step for step in steps), steps
