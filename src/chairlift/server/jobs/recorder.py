"""What becomes of a job, written down; where the store fails, again and again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable

from chairlift.engine.messages import Finished
from chairlift.errors import RequestError, StorageFailed
from chairlift.server.jobs.job import Job, JobError, JobStatus
from chairlift.server.jobs.store import JobStore

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 10.0
PATIENCE_SECONDS = 60.0
"""For how long pictures that can't be stored are kept in memory, and tried again."""


class Recorder:
    """Writes down when jobs start and how they end. What can't be written is tried again until it
    can, or until :meth:`give_up`; a job whose end isn't written is played again at the next start.

    The times that it writes never run backwards, even if the clock does.

    Args:
        store: Where jobs are kept.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._closing = asyncio.Event()

    def give_up(self) -> None:
        """Try everything at most once from here on."""
        self._closing.set()

    async def start(self, job: Job) -> Job:
        """It is running.

        Raises:
            StorageFailed: That can't be written, and it was given up.
        """
        return await self._insist(lambda: self._store.start(job.id, _now(job)))

    async def cancel(self, job: Job) -> Job:
        """Somebody has ended it.

        Raises:
            StorageFailed: That can't be written, and it was given up.
        """
        return await self._insist(lambda: self._store.cancel(job.id, _now(job)))

    async def fail(self, job: Job, error: RequestError) -> Job:
        """It has ended without pictures.

        Raises:
            StorageFailed: That can't be written, and it was given up.
        """
        reason = JobError(error.code, error.message, error.param)
        return await self._insist(lambda: self._store.fail(job.id, reason, _now(job)))

    async def succeed(self, job: Job, finished: Finished) -> Job:
        """Its pictures are there. If they can't be stored for a minute, it has failed.

        Raises:
            StorageFailed: Not even that can be written, and it was given up.
        """
        if job.status is JobStatus.QUEUED:  # Done before any tick was reported.
            job = await self.start(job)
        images, timings = finished.images, finished.timings
        try:
            return await self._insist(
                lambda: self._store.succeed(job.id, images, timings, _now(job)), PATIENCE_SECONDS
            )
        except StorageFailed as error:
            if self._closing.is_set():
                raise
            return await self.fail(job, error)

    async def _insist(self, write: Callable[[], Awaitable[Job]], patience: float = math.inf) -> Job:
        """Write, again and again for so many seconds."""
        clock = asyncio.get_running_loop().time
        deadline, pause = clock() + patience, FIRST_PAUSE_SECONDS
        while True:
            try:
                return await write()
            except StorageFailed as error:
                if self._closing.is_set() or clock() + pause > deadline:
                    raise
                logger.warning("%s; it is tried again in %g s", error.message, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)


def _now(job: Job) -> float:
    """Unix time in seconds, but not before what has happened to the job already."""
    return max(time.time(), job.started_at or job.created_at)
