"""Builders for tests of jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from chairlift.engine.messages import Timings
from chairlift.server.jobs.data_dir import DataDir
from chairlift.server.jobs.job import Job, JobError, new_job
from chairlift.server.jobs.store import JobStore
from tests.builders import a_request

TIMINGS = Timings(queue_s=0.5, encode_s=0.1, denoise_s=1.5, decode_s=0.25, total_s=2.35, steps=20)
ERROR = JobError("step_failed", "a step has failed", None)
_REQUEST = a_request(prompt="a boat — “æøå” 🚡", negative_prompt="fog")


def job_id(number: int) -> str:
    return f"job_{number:032x}"


def a_job(
    number: int = 0,
    *,
    user: str | None = None,
    owner: str = "",
    key: str | None = None,
    digest: bytes | None = None,
) -> Job:
    """A queued job; the higher its number, the later it was created."""
    return new_job(
        replace(_REQUEST, id=job_id(number), owner=owner),
        created_at=1_763_700_000.125 + number,
        warnings=("quality has no effect",),
        user=user,
        idempotency_key=key,
        body_digest=digest,
    )


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[JobStore]:
    """A store in this folder."""
    with DataDir.open(path) as data_dir:
        async with await JobStore.open(data_dir) as store:
            yield store


async def add_succeeded(
    store: JobStore, number: int, *, images: tuple[bytes, ...] = (b"picture",), at: float = 2e9
) -> Job:
    """A job that is done."""
    await store.add(a_job(number))
    await store.start(job_id(number), at - 1)
    return await store.succeed(job_id(number), images, TIMINGS, at)


def names(folder: Path) -> list[str]:
    """What is in a folder, however deep."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
