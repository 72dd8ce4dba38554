"""Jobs that are on their way: from the acknowledgement to the stored picture."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, TypeVar

from chairlift.engine.messages import Activity
from chairlift.engine.ride import Ride
from chairlift.errors import (
    DeadlineUnattainable,
    IdempotencyMismatch,
    JobFinished,
    RequestCancelled,
    RequestError,
    StorageFailed,
    Unavailable,
    UnknownJob,
    UnknownModel,
)
from chairlift.request import GenerationRequest
from chairlift.server.engine import Engine
from chairlift.server.jobs.job import Job, JobStatus, new_job
from chairlift.server.jobs.live import LiveJob, last_event
from chairlift.server.jobs.recorder import Recorder
from chairlift.server.jobs.statistics import StoreStatistics
from chairlift.server.jobs.store import Added, JobStore, Page, unknown_job
from chairlift.server.jobs.view import JobAnswer, show_job

logger = logging.getLogger(__name__)

T = TypeVar("T")

ACCEPTANCE_SECONDS = 0.25
"""How long an acknowledgement waits for the engine's own prediction."""
VERDICT_SECONDS = 10.0
"""The same, where the engine may refuse the job, which it says between two ticks."""
SWEEP_SECONDS = 60.0
"""Between two looks for jobs that needn't be kept any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """What is kept of finished jobs; None is no bound."""

    seconds: float | None = None
    bytes: int | None = None


class JobManager:
    """Hands jobs to the engine and writes down what becomes of them.

    Args:
        client: The engine, which is started.
        store: Where jobs are kept; closed with this.
        retention: What is kept of finished jobs.
        strict: Whether the engine refuses deadlines that can't be kept.
    """

    def __init__(
        self, client: Engine, store: JobStore, retention: Retention, strict: bool = False
    ) -> None:
        self._client = client
        self._store = store
        self._retention = retention
        self._strict = strict
        self._recorder = Recorder(store)
        self._live: dict[str, LiveJob] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sweeping: asyncio.Task[None] | None = None
        self._stop_listening = client.listen(self._look)

    async def start(self) -> None:
        """Play again what was accepted before and isn't finished."""
        for job in await self._store.unfinished():
            assert job.request is not None
            served = self._client.card.id
            if job.request.model == served:
                self._begin(job, self._client.submit(replace(job.request, is_promised=True)))
                continue
            reason = f"the job is for {job.request.model!r}; the model served now is {served!r}"
            refused = UnknownModel(reason, param="model")
            await self._recorder.fail(job, refused)
        self._sweeping = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        """Finish writing. Jobs that aren't done leave the engine and stay in the store, for the
        next start.
        """
        self._stop_listening()
        self._recorder.give_up()
        if self._sweeping is not None:
            self._sweeping.cancel()
        while self._tasks:
            self._leave(list(self._live.values()))
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        await self._store.close()

    def leave_waiting(self) -> None:
        """Jobs that haven't been in a tick leave the engine and stay in the store."""
        self._leave([live for live in self._live.values() if not live.ride.boarded.is_set()])

    def _leave(self, jobs: list[LiveJob]) -> None:
        for live in jobs:
            if not live.ride.answer.done():
                live.ride.is_kept = True
                live.ride.fail(Unavailable("the server is shutting down"))

    # ------------------------------------------------------------------ what callers ask

    async def submit(
        self,
        request: GenerationRequest,
        *,
        warnings: list[str],
        user: str | None,
        key: str | None = None,
        digest: bytes | None = None,
    ) -> tuple[Job, bool]:
        """Accept a job: when this returns, it is on the disk. The job, and whether it is new, or
        the one that came with the same idempotency key before.

        Raises:
            IdempotencyMismatch: That one was another request.
            DeadlineUnattainable: It would miss its deadline, and admission is strict.
            StorageFailed: It can't be written, and isn't accepted.
        """
        job = new_job(
            request,
            created_at=time.time(),
            warnings=tuple(warnings),
            user=user,
            idempotency_key=key,
            body_digest=digest,
        )
        # Before it is written, so that it counts as pending at once.
        ride = self._client.submit(request)
        accepting = self._keep_task(self._accept(job, ride))
        # A caller who goes away leaves no job behind that is written and not followed.
        added, is_new = await asyncio.shield(accepting)
        return (added, True) if is_new else (_checked(added, digest), False)

    async def find(self, key: str, digest: bytes, owner: str = "") -> Job | None:
        """The owner's job that came with this idempotency key.

        Raises:
            IdempotencyMismatch: It was another request.
        """
        job = await self._store.find(key, owner)
        return job and _checked(job, digest)

    async def wait(self, id: str) -> Job:
        """The job, once it has ended.

        Raises:
            UnknownJob: There is none.
            Unavailable: The server is shutting down before.
        """
        job = await self.give_time(id)
        if not job.status.is_terminal:
            raise Unavailable("the server is shutting down; the job goes on when it starts again")
        return job

    async def cancel(self, id: str, owner: str = "") -> Job:
        """End a job; it is off the lift by the next tick.

        Raises:
            UnknownJob: The owner has none.
            JobFinished: It has ended before.
        """
        job = await self.get(id, owner)
        if not job.status.is_terminal:
            self._client.cancel(id)
            job = await self.wait(id)
            if job.status is JobStatus.CANCELLED:
                return job
        raise JobFinished(f"the job {id} has ended already: it is {job.status}")

    async def remove(self, id: str, owner: str = "") -> None:
        """Forget a job that has ended, with its pictures and its idempotency key.

        Raises:
            UnknownJob: The owner has none.
            JobNotFinished: It has not ended.
            StorageFailed: It couldn't be removed.
        """
        await self.get(id, owner)
        await self._store.remove(id)

    async def give_time(self, id: str, seconds: float | None = None) -> Job:
        """The job, once it has ended, or as it is after so long, or when the server ends.

        Raises:
            UnknownJob: There is none.
        """
        live = self._live.get(id)
        if live is None:
            return await self._store.get(id)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(live.ended.wait(), seconds)
        return live.job  # When the server ends, the store may be closed by now.

    def ride(self, id: str) -> Ride | None:
        """The ride of a job that has not ended."""
        live = self._live.get(id)
        return live.ride if live else None

    async def await_prediction(self, id: str) -> None:
        """Give the engine a moment to predict when a job will be done."""
        if ride := self.ride(id):
            await _reach_acceptance(ride)

    async def get(self, id: str, owner: str = "") -> Job:
        """The job with this id; any text may be asked for.

        Args:
            id: The job's.
            owner: Whose it must be; empty is anybody's.

        Raises:
            UnknownJob: The owner has none.
        """
        job = await self._store.get(id)
        if owner not in ("", job.owner):
            raise unknown_job(id)
        return job

    async def page(
        self,
        *,
        limit: int,
        after: str | None,
        statuses: list[JobStatus] | None,
        user: str | None,
        owner: str = "",
    ) -> Page:
        """Jobs, the newest first; see :meth:`JobStore.page`. An empty owner is everybody."""
        return await self._store.page(
            limit=limit, after=after, statuses=statuses, user=user, owner=owner or None
        )

    async def statistics(self) -> StoreStatistics:
        """How much is stored."""
        return await self._store.statistics()

    async def open_image(self, job: Job, index: int) -> BinaryIO:
        """A picture file, or a video, of a job that has succeeded. Who has it open can read it to
        its end, even if the job is removed.

        Raises:
            UnknownJob: It was removed meanwhile.
            StorageFailed: The disk fails.
        """
        return await self._of_file(lambda: self._store.picture(job, index).open("rb"), job)

    async def image(self, job: Job, index: int) -> bytes:
        """All of that file.

        Raises:
            UnknownJob: It was removed meanwhile.
            StorageFailed: The disk fails.
        """
        return await self._of_file(self._store.picture(job, index).read_bytes, job)

    async def _of_file(self, read: Callable[[], T], job: Job) -> T:
        try:
            return await asyncio.to_thread(read)
        except FileNotFoundError:
            raise UnknownJob(f"the job {job.id} was removed") from None
        except OSError as error:
            raise StorageFailed(f"the picture can't be read: {error.strerror}") from error

    def show(self, job: Job) -> JobAnswer:
        """What callers are shown."""
        client = self._client
        now, backlog = asyncio.get_running_loop().time(), client.activity.backlog_seconds
        return show_job(job, client.card, client.rides, now, backlog)

    async def events(self, job: Job) -> AsyncIterator[bytes]:
        """The events of a job, from how it is now to its end."""
        if live := self._live.get(job.id):
            async with contextlib.aclosing(live.watch()) as events:
                async for event in events:
                    yield event
        else:
            stored = await self._store.get(job.id)
            yield last_event(self.show(stored))

    # ------------------------------------------------------------------ what becomes of them

    async def _accept(self, job: Job, ride: Ride) -> Added:
        """Write a job down, and follow it; or end its ride, if it can't be written or was there
        before.
        """
        try:
            if self._strict and ride.request.deadline is not None:
                await _reach_acceptance(ride, VERDICT_SECONDS)
                _check_deadline(ride)
            added = await self._store.add(job)
        except BaseException:
            ride.answer.cancel()
            raise
        if added.is_new:
            self._begin(added.job, ride)
        else:
            ride.answer.cancel()
        return added

    def _begin(self, job: Job, ride: Ride) -> None:
        ride.is_owed = True
        live = self._live[job.id] = LiveJob(job, ride, self.show)
        self._keep_task(self._follow(live))

    def _keep_task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``work``, which :meth:`close` waits for."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _follow(self, live: LiveJob) -> None:
        try:
            await self._record(live)
        except StorageFailed:
            logger.exception("what became of %s can't be written; it is played again", live.job.id)
        finally:
            del self._live[live.job.id]
            live.end()

    async def _record(self, live: LiveJob) -> None:
        """Write down when the job starts and how it ends."""
        ride, recorder = live.ride, self._recorder
        await ride.reach(ride.boarded)
        if live.job.status is JobStatus.QUEUED and ride.boarded.is_set():
            live.job = await recorder.start(live.job)
            live.tell()
        try:
            finished = await ride.answer
        except (RequestCancelled, asyncio.CancelledError):
            live.job = await recorder.cancel(live.job)
        except Unavailable:
            logger.info("%s goes on when the server starts again", live.job.id)
        except RequestError as error:
            live.job = await recorder.fail(live.job, error)
        else:
            live.job = await recorder.succeed(live.job, finished)

    def _look(self, activity: Activity) -> None:
        """Tell the readers of events what has changed."""
        for live in self._live.values():
            live.tell()

    async def _sweep(self) -> None:
        """Remove, again and again, what needn't be kept any more."""
        while True:
            try:
                await self._store.remove_expired(
                    time.time(),
                    max_age_seconds=self._retention.seconds,
                    max_bytes=self._retention.bytes,
                )
            except StorageFailed:
                logger.exception("old jobs can't be removed")
            await asyncio.sleep(SWEEP_SECONDS)


async def _reach_acceptance(ride: Ride, seconds: float = ACCEPTANCE_SECONDS) -> None:
    """Wait until the engine has taken a request or refused it, at most so long."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ride.reach(ride.accepted), seconds)


def _check_deadline(ride: Ride) -> None:
    """Raise what the engine says of a deadline that can't be kept."""
    if ride.answer.done() and not ride.answer.cancelled():
        error = ride.answer.exception()
        if isinstance(error, DeadlineUnattainable):
            raise error


def _checked(job: Job, digest: bytes | None) -> Job:
    if job.body_digest != digest:
        raise IdempotencyMismatch(f"the Idempotency-Key came with another request before, {job.id}")
    return job
