"""Room that is kept on the disk."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from chairlift.errors import StorageFailed
from chairlift.server.jobs import reserve
from chairlift.server.jobs.job import JobStatus
from tests.server.jobs.builders import ERROR, a_job, job_id, opened

LOG = "jobs.sqlite3-wal"


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="files can't be made longer")
def test_the_log_has_its_room_and_does_not_outgrow_it(tmp_path: Path) -> None:
    async def write() -> None:
        async with opened(tmp_path) as store:
            assert (tmp_path / LOG).stat().st_size == reserve.LOG_BYTES
            for number in range(400):
                await store.add(a_job(number))
                await store.fail(job_id(number), ERROR, 2e9)
            assert (tmp_path / LOG).stat().st_size == reserve.LOG_BYTES

    asyncio.run(write())


def test_a_log_with_room_is_read_after_a_crash(tmp_path: Path) -> None:
    async def write() -> None:
        async with opened(tmp_path) as store:
            await store.add(a_job(1))
            shutil.copytree(tmp_path, tmp_path / "crashed", ignore=lambda *_: ["crashed"])

    async def read() -> list[JobStatus]:
        async with opened(tmp_path / "crashed") as store:
            return [job.status for job in await store.unfinished()]

    asyncio.run(write())
    assert asyncio.run(read()) == [JobStatus.QUEUED]


def test_a_job_is_not_accepted_without_room_for_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def add() -> None:
        async with opened(tmp_path) as store:
            monkeypatch.setattr(reserve, "MIN_FREE_BYTES", 2**62)
            with pytest.raises(StorageFailed, match=f"bytes are free of at least {2**62}"):
                await store.add(a_job(1))
            assert await store.unfinished() == []

    asyncio.run(add())


def test_a_disk_without_room_for_the_log_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def add() -> None:
        async with opened(tmp_path) as store:
            await store.add(a_job(1))

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    asyncio.run(add())
    assert "no room can be kept for the ends of jobs: No space left on device" in caplog.text
