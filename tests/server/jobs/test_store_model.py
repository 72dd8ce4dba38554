"""The store against a dictionary: whatever is done, restarts in between, they hold the same."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.strategies import integers, sampled_from

from chairlift.errors import IllegalTransition, UnknownJob
from chairlift.server.jobs.data_dir import DataDir
from chairlift.server.jobs.job import TRANSITIONS, Job, JobStatus
from chairlift.server.jobs.store import JobStore
from tests.server.jobs.builders import ERROR, TIMINGS, a_job, job_id

NUMBERS = integers(min_value=0, max_value=5)
MOVES = sampled_from(
    [JobStatus.RUNNING, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED]
)
PICTURE = b"ten bytes."


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.jobs: dict[str, Job] = {}
        self.now = 0.0

    @initialize()
    def start(self) -> None:
        self.data_dir = DataDir.open(self.folder)
        self.store = self.runner.run(JobStore.open(self.data_dir))

    def stop(self) -> None:
        self.runner.run(self.store.close())
        self.data_dir.close()

    def teardown(self) -> None:
        self.stop()
        self.runner.close()
        shutil.rmtree(self.folder)

    @rule(number=NUMBERS, key=sampled_from([None, "k", "l"]))
    def add(self, number: int, key: str | None) -> None:
        job = a_job(number, key=key)
        same = [other for other in self.jobs.values() if key and other.idempotency_key == key]
        if job.id in self.jobs and not same:
            return
        added = self.runner.run(self.store.add(job))
        assert added == ((same[0], False) if same else (job, True))
        if not same:
            self.jobs[job.id] = job

    @rule(number=NUMBERS, status=MOVES)
    def move(self, number: int, status: JobStatus) -> None:
        id, self.now = job_id(number), self.now + 1
        expected = self.jobs.get(id)
        try:
            moved = self.runner.run(self.call(id, status))
        except UnknownJob:
            assert expected is None
        except IllegalTransition:
            assert expected is not None
            assert status not in TRANSITIONS[expected.status]
        else:
            assert expected is not None
            assert status in TRANSITIONS[expected.status]
            self.jobs[id] = replace(expected, status=status, **self.changes(status))
            assert moved == self.jobs[id]

    def call(self, id: str, status: JobStatus) -> Any:
        if status is JobStatus.RUNNING:
            return self.store.start(id, self.now)
        if status is JobStatus.SUCCEEDED:
            return self.store.succeed(id, [PICTURE], TIMINGS, self.now)
        if status is JobStatus.FAILED:
            return self.store.fail(id, ERROR, self.now)
        return self.store.cancel(id, self.now)

    def changes(self, status: JobStatus) -> dict[str, Any]:
        if status is JobStatus.RUNNING:
            return {"started_at": self.now}
        if status is JobStatus.SUCCEEDED:
            has = {"timings": TIMINGS, "images": 1, "picture_bytes": len(PICTURE)}
            return {"finished_at": self.now} | has
        return {"finished_at": self.now} | ({"error": ERROR} if status is JobStatus.FAILED else {})

    @rule(kept=integers(min_value=0, max_value=4))
    def keep_some_pictures(self, kept: int) -> None:
        done = [job for job in self.jobs.values() if job.status is JobStatus.SUCCEEDED]
        done.sort(key=lambda job: job.finished_at or 0)
        expected = {job.id for job in done[: max(0, len(done) - kept)]}
        size = kept * len(PICTURE)
        assert set(self.runner.run(self.store.remove_expired(0, max_bytes=size))) == expected
        self.jobs = {id: job for id, job in self.jobs.items() if id not in expected}

    @rule()
    def restart(self) -> None:
        self.stop()
        self.start()
        for id, job in self.jobs.items():
            if job.status is JobStatus.RUNNING:
                self.jobs[id] = replace(job, status=JobStatus.QUEUED, started_at=None)

    @invariant()
    def they_hold_the_same(self) -> None:
        assert self.runner.run(self.read()) == list(self.jobs.values())
        have = {path.name for path in (self.folder / "pictures").iterdir()}
        assert have == {id for id, job in self.jobs.items() if job.status is JobStatus.SUCCEEDED}

    async def read(self) -> list[Job]:
        jobs = (await self.store.page(limit=10)).jobs[::-1]
        unfinished = [job for job in jobs if not job.status.is_terminal]
        assert await self.store.unfinished() == unfinished
        return jobs


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
