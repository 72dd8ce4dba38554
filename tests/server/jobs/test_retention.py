from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from chairlift.errors import JobNotFinished, StorageFailed, UnknownJob
from chairlift.server.jobs import retention
from chairlift.server.jobs.data_dir import DataDir
from chairlift.server.jobs.store import JobStore
from tests.server.jobs.builders import ERROR, a_job, add_succeeded, job_id, names, opened

NOW = 1_000_000.0


async def fill(store: JobStore) -> None:
    """Jobs 1 to 5 have finished, the last one first, each with 100 bytes of pictures; 6 failed
    before them; 7 runs, 8 waits.
    """
    for number in range(1, 6):
        await add_succeeded(store, number, images=(60 * b"x", 40 * b"y"), at=NOW - 10 * number)
    for number in (6, 7, 8):
        await store.add(a_job(number))
    await store.fail(job_id(6), ERROR, NOW - 60)
    await store.start(job_id(7), NOW - 1000)


def removed(folder: Path, **bounds: Any) -> list[int]:
    """The numbers of the jobs that are removed, which are gone altogether."""

    async def remove() -> list[str]:
        async with opened(folder) as store:
            await fill(store)
            ids = await store.remove_expired(NOW, **bounds)
            kept = [job_id(number) for number in range(1, 9) if job_id(number) not in ids]
            assert [job.id for job in (await store.page(limit=99)).jobs] == kept[::-1]
            for id in ids:
                with pytest.raises(UnknownJob):
                    await store.get(id)
            have_pictures = [id for id in kept if id <= job_id(5)]
            assert sorted(path.name for path in (folder / "pictures").iterdir()) == have_pictures
            assert (await store.statistics()).picture_bytes == 100 * len(have_pictures)
            return ids

    return sorted(int(id.removeprefix("job_"), 16) for id in asyncio.run(remove()))


def test_without_bounds_everything_is_kept(tmp_path: Path) -> None:
    assert removed(tmp_path) == []


@pytest.mark.parametrize(
    ("seconds", "expected"), [(1000, []), (30, [4, 5, 6]), (0, [1, 2, 3, 4, 5, 6])]
)
def test_what_finished_too_long_ago_goes(
    tmp_path: Path, seconds: float, expected: list[int]
) -> None:
    assert removed(tmp_path, max_age_seconds=seconds) == expected


@pytest.mark.parametrize(
    ("size", "expected"), [(500, []), (499, [5]), (200, [3, 4, 5]), (99, [1, 2, 3, 4, 5])]
)
def test_the_oldest_pictures_go_until_the_others_fit(
    tmp_path: Path, size: int, expected: list[int]
) -> None:
    assert removed(tmp_path, max_bytes=size) == expected


def test_both_bounds_hold(tmp_path: Path) -> None:
    assert removed(tmp_path, max_age_seconds=45, max_bytes=300) == [4, 5, 6]


def test_many_jobs_go_in_several_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    assert removed(tmp_path, max_age_seconds=45, max_bytes=100) == [2, 3, 4, 5, 6]


def test_a_key_is_free_again_when_its_job_is_gone(tmp_path: Path) -> None:
    async def add_again() -> None:
        async with opened(tmp_path) as store:
            await store.add(a_job(1, key="k"))
            await store.cancel(job_id(1), NOW)
            assert await store.remove_expired(NOW + 1, max_age_seconds=0) == [job_id(1)]
            assert (await store.add(a_job(2, key="k"))).is_new

    asyncio.run(add_again())


def test_pictures_that_resist_go_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    async def remove() -> None:
        async with opened(tmp_path) as store:
            await add_succeeded(store, 1, at=NOW)
            with monkeypatch.context() as patch:
                patch.setattr(shutil, "rmtree", refuse)
                with pytest.raises(StorageFailed, match="Operation not permitted"):
                    await store.remove_expired(NOW + 1, max_age_seconds=0)
            with pytest.raises(UnknownJob):
                await store.get(job_id(1))
        assert names(tmp_path / "pictures") == [job_id(1), f"{job_id(1)}/0.png"]
        async with opened(tmp_path):
            assert names(tmp_path / "pictures") == []

    asyncio.run(remove())


def test_a_removal_is_carried_through_without_its_caller(tmp_path: Path) -> None:
    async def remove() -> None:
        with DataDir.open(tmp_path) as data_dir:
            store = await JobStore.open(data_dir)
            await add_succeeded(store, 1, at=NOW)
            caller = asyncio.create_task(store.remove_expired(NOW + 1, max_age_seconds=0))
            await asyncio.sleep(0)
            caller.cancel()
            await store.close()
        assert names(tmp_path / "pictures") == []

    asyncio.run(remove())


def test_one_job_is_removed_if_it_has_ended(tmp_path: Path) -> None:
    async def remove() -> list[str]:
        async with opened(tmp_path) as store:
            await fill(store)
            for number in (2, 6):
                await store.remove(job_id(number))
                with pytest.raises(UnknownJob):
                    await store.remove(job_id(number))
            for number, status in ((7, "running"), (8, "queued")):
                with pytest.raises(JobNotFinished, match=f"is {status}; cancel it first"):
                    await store.remove(job_id(number))
            return [job.id for job in (await store.page(limit=99)).jobs]

    assert asyncio.run(remove()) == [job_id(number) for number in (8, 7, 5, 4, 3, 1)]
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        job_id(number) for number in (1, 3, 4, 5)
    ]
