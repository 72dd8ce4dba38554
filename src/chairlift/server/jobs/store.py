"""The durable store of jobs: rows in SQLite, pictures in files.

What a method has returned is on the disk, even if the power fails in the next moment. Nothing here
blocks the event loop. It knows no HTTP and no engine.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Collection, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import aiosqlite

from chairlift.engine.messages import Timings
from chairlift.errors import (
    ConfigurationError,
    IllegalTransition,
    InvalidRequest,
    JobNotFinished,
    StorageFailed,
    UnknownJob,
)
from chairlift.server.jobs.data_dir import DataDir
from chairlift.server.jobs.job import Job, JobError, JobStatus, is_job_id, transition
from chairlift.server.jobs.page_query import page_query
from chairlift.server.jobs.pictures import PictureFolder
from chairlift.server.jobs.recovery import recover
from chairlift.server.jobs.reserve import require_room, reserve_log
from chairlift.server.jobs.retention import remove_row, remove_rows
from chairlift.server.jobs.rows import INSERT, UPDATE, read_job, write_job
from chairlift.server.jobs.schema import connected, prepare_database
from chairlift.server.jobs.statistics import COUNT_JOBS, SUM_PICTURES, StoreStatistics
from chairlift.server.jobs.writer import Writer, storage_failed

T = TypeVar("T")

_WITH_ID = "SELECT * FROM jobs WHERE id = ?"
_WITH_KEY = "SELECT * FROM jobs WHERE owner = ? AND idempotency_key = ?"
_UNFINISHED = "SELECT * FROM jobs WHERE status IN ('queued', 'running') ORDER BY sequence"
_BEYOND_ALL = 2**63 - 1
"""Larger than every sequence number."""


class Added(NamedTuple):
    """What became of a job that was added."""

    job: Job
    """The job itself, or its owner's that has the idempotency key already."""
    is_new: bool


class Page(NamedTuple):
    """Some jobs of many."""

    jobs: list[Job]
    has_more: bool


class JobStore:
    """All jobs of one data folder.

    Any number of tasks may call it at once. Writes are carried out in the order of the calls;
    those that wait meanwhile share one commit. A write that was called is carried out even if its
    caller is cancelled meanwhile.

    Every method that writes raises :class:`chairlift.errors.StorageFailed` if the disk is full or
    doesn't do what it should; nothing has changed then, and a later call may succeed.
    """

    @classmethod
    async def open(cls, data_dir: DataDir) -> Self:
        """Open the database, or make it; bring it to the present schema; put jobs that were running
        when the server died back into the queue; remove what a crash has left beside it.

        An unfinished job that this version can't read, because another one has stored it, has
        failed then, with the code ``storage_failed``.

        Raises:
            ConfigurationError: The database is corrupt, not Chairlift's, or of a newer version,
                and nothing was changed; or it can't be written.
        """
        database, pictures = data_dir.database, PictureFolder(data_dir.pictures)
        await asyncio.to_thread(prepare_database, database)
        try:
            async with AsyncExitStack() as stack:
                writer = Writer(await stack.enter_async_context(connected(database)))
                reader = await stack.enter_async_context(connected(database))
                stack.push_async_callback(writer.drain)
                now = time.time()
                kept = await writer.write(lambda connection: recover(connection, now))
                await asyncio.to_thread(pictures.sweep, kept)
                await asyncio.to_thread(reserve_log, database)
                return cls(writer, reader, pictures, stack.pop_all())
        except (StorageFailed, sqlite3.Error) as error:
            reason = error.__cause__ or error
            raise ConfigurationError(f"the database {database} can't be used: {reason}") from error
        except OSError as error:
            raise ConfigurationError(
                f"the data folder {data_dir.path} can't be cleaned up: {error.strerror}"
            ) from error

    def __init__(
        self,
        writer: Writer,
        reader: aiosqlite.Connection,
        pictures: PictureFolder,
        resources: AsyncExitStack,
    ) -> None:
        """Stores are made with :meth:`open`."""
        self._writer = writer
        self._reader = reader
        self._pictures = pictures
        self._resources = resources
        self._succeeding: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Finish what was called, then close the database. The data folder stays locked."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._resources.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    # --- Writing

    async def add(self, job: Job) -> Added:
        """Store a queued job. If its owner has one with the same idempotency key, that one is
        returned instead and nothing is written; compare the ``body_digest`` of the two.

        Raises:
            StorageFailed: It isn't stored, and must not be acknowledged.
            ValueError: It isn't queued, has no request, or its id is there already.
        """
        if job.status is not JobStatus.QUEUED or job.request is None:
            raise ValueError(f"a job that is added is queued and has a request, not {job}")
        row = write_job(job)

        async def insert(connection: aiosqlite.Connection) -> Added:
            await asyncio.to_thread(require_room, self._pictures.path)
            if (await connection.execute(INSERT, row)).rowcount:
                return Added(job, True)
            if job.idempotency_key is not None:
                scope = job.owner, job.idempotency_key
                rows = await connection.execute_fetchall(_WITH_KEY, scope)
                for row_of_first in rows:
                    return Added(read_job(row_of_first), False)
            raise ValueError(f"there is a job {job.id} already")

        return await self._writer.write(insert)

    async def start(self, id: str, at: float) -> Job:
        """It is running from now on.

        Args:
            id: The job's.
            at: Unix time in seconds, as below.

        Raises:
            UnknownJob: There is none.
            IllegalTransition: It isn't queued.
            StorageFailed: It couldn't be written.
        """
        return await self._move(id, JobStatus.RUNNING, started_at=at)

    async def succeed(self, id: str, images: Sequence[bytes], timings: Timings, at: float) -> Job:
        """Store its pictures, then its success; in this order, so that a job which has succeeded
        has all of its pictures.

        Raises:
            UnknownJob: There is none.
            IllegalTransition: It isn't running; the pictures aren't kept.
            StorageFailed: They couldn't be written; what was written of them is removed, and the
                job is still running. (``fail`` may succeed: it needs little room.)
        """
        return await self._carry_through(self._succeed(id, images, timings, at))

    async def fail(self, id: str, error: JobError, at: float) -> Job:
        """It has ended without pictures.

        Raises:
            UnknownJob: There is none.
            IllegalTransition: It has ended before.
            StorageFailed: It couldn't be written.
        """
        return await self._move(id, JobStatus.FAILED, error=error, finished_at=at)

    async def cancel(self, id: str, at: float) -> Job:
        """It has ended because somebody wanted so.

        Raises:
            UnknownJob: There is none.
            IllegalTransition: It has ended before.
            StorageFailed: It couldn't be written.
        """
        return await self._move(id, JobStatus.CANCELLED, finished_at=at)

    async def remove_expired(
        self, now: float, *, max_age_seconds: float | None = None, max_bytes: int | None = None
    ) -> list[str]:
        """Remove finished jobs, with their pictures: those that finished too long ago, then, oldest
        first, those with pictures until all pictures together are small enough. Unfinished jobs
        always stay.

        Args:
            now: Unix time in seconds.
            max_age_seconds: How long ago a job may have finished; None is no bound.
            max_bytes: How large all pictures together may be; None is no bound.

        Returns:
            The ids of the jobs that are gone.

        Raises:
            StorageFailed: Some picture couldn't be removed; that is tried again at the next start.
        """
        before = None if max_age_seconds is None else now - max_age_seconds
        return await self._carry_through(self._remove(before, max_bytes))

    async def remove(self, id: str) -> None:
        """Remove a finished job, with its pictures.

        Raises:
            UnknownJob: There is none.
            JobNotFinished: It has not ended.
            StorageFailed: It couldn't be removed; or its pictures couldn't, which is tried again at
                the next start.
        """
        await self._carry_through(self._remove_one(id))

    # --- Reading

    async def get(self, id: str) -> Job:
        """The job with this id; any text may be asked for.

        Raises:
            UnknownJob: There is none.
        """
        if is_job_id(id):
            for row in await self._read(_WITH_ID, id):
                return read_job(row)
        raise unknown_job(id)

    async def find(self, idempotency_key: str, owner: str = "") -> Job | None:
        """The job of this owner that was added with this key."""
        for row in await self._read(_WITH_KEY, owner, idempotency_key):
            return read_job(row)
        return None

    async def page(
        self,
        *,
        limit: int,
        after: str | None = None,
        statuses: Collection[JobStatus] | None = None,
        user: str | None = None,
        owner: str | None = None,
    ) -> Page:
        """Jobs, the last one added first. Jobs that are added meanwhile don't move a page.

        Args:
            limit: The most jobs in the page, at least 1.
            after: Only jobs that were added before the one with this id.
            statuses: Only these; None is all.
            user: Only this user's; None is everybody's.
            owner: Only this owner's; None is everybody's.

        Raises:
            InvalidRequest: The owner has no job with the id ``after``.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}; it must be at least 1")
        before = _BEYOND_ALL if after is None else await self._sequence(after, owner)
        if statuses is not None and not statuses:
            return Page([], False)
        sql, parameters = page_query(
            limit=limit + 1, before=before, statuses=statuses, user=user, owner=owner
        )
        jobs = [read_job(row) for row in await self._read(sql, *parameters)]
        return Page(jobs[:limit], len(jobs) > limit)

    async def unfinished(self) -> list[Job]:
        """The queued and the running jobs, in the order in which they were added; each has its
        request. After ``open`` all of them are queued: these are to be played again.
        """
        return [read_job(row) for row in await self._read(_UNFINISHED)]

    async def statistics(self) -> StoreStatistics:
        """How much is stored."""
        counts = await self._read(COUNT_JOBS)
        [size] = await self._read(SUM_PICTURES)
        return StoreStatistics.of(counts, size)

    def picture(self, job: Job, index: int) -> Path:
        """The file of a job's picture. It may vanish when the job is removed.

        Raises:
            ValueError: The job has no such picture; it has ``job.images``.
        """
        if not 0 <= index < job.images:
            raise ValueError(f"job {job.id} has {job.images} pictures, and no number {index}")
        return self._pictures.file(job.id, index, job.output_format)

    # --- How

    async def _move(self, id: str, status: JobStatus, **changes: Any) -> Job:
        if not is_job_id(id):
            raise unknown_job(id)

        async def move(connection: aiosqlite.Connection) -> Job:
            rows = list(await connection.execute_fetchall(_WITH_ID, (id,)))
            if not rows:
                raise unknown_job(id)
            job = read_job(rows[0])
            moved = replace(job, status=transition(job.status, status), **changes)
            await connection.execute(UPDATE, write_job(moved))
            return moved

        return await self._writer.write(move)

    async def _succeed(self, id: str, images: Sequence[bytes], timings: Timings, at: float) -> Job:
        if id in self._succeeding:
            raise IllegalTransition(f"the pictures of {id} are being stored already")
        self._succeeding.add(id)
        try:
            job = await self.get(id)
            transition(job.status, JobStatus.SUCCEEDED)
            await asyncio.to_thread(self._pictures.write, id, images, job.output_format)
            try:
                return await self._move(
                    id,
                    JobStatus.SUCCEEDED,
                    finished_at=at,
                    timings=timings,
                    images=len(images),
                    picture_bytes=sum(map(len, images)),
                )
            except Exception:
                await asyncio.to_thread(self._pictures.discard, id)
                raise
        finally:
            self._succeeding.remove(id)

    async def _remove(self, finished_before: float | None, max_bytes: int | None) -> list[str]:
        # Rows first: a row without pictures would promise what isn't there, while pictures without
        # a row are swept up at the next start.
        removed: list[str] = []
        while batch := await self._writer.write(
            lambda connection: remove_rows(connection, finished_before, max_bytes)
        ):
            await asyncio.to_thread(self._pictures.remove, batch)
            removed += batch
        return removed

    async def _remove_one(self, id: str) -> None:
        if not await self._writer.write(lambda connection: remove_row(connection, id)):
            job = await self.get(id)  # There may be none, or none any more.
            raise JobNotFinished(f"the job {id} is {job.status}; cancel it first")
        await asyncio.to_thread(self._pictures.remove, [id])

    async def _carry_through(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work of several parts; a caller that is cancelled doesn't leave it half done."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _sequence(self, id: str, owner: str | None) -> int:
        if is_job_id(id):
            for row in await self._read(_WITH_ID, id):
                assert isinstance(row["sequence"], int)
                if owner in (None, row["owner"]):
                    return row["sequence"]
        raise InvalidRequest(f"after: there is no job {id[:80]!r}", param="after")

    async def _read(self, sql: str, *parameters: object) -> Sequence[sqlite3.Row]:
        try:
            return list(await self._reader.execute_fetchall(sql, parameters))
        except sqlite3.Error as error:
            raise storage_failed("the jobs can't be read", error) from error


def unknown_job(id: str) -> UnknownJob:
    """The refusal of an id that no job has, or none of the caller's."""
    return UnknownJob(f"there is no job {id[:80]!r}")
