"""Jobs whose deadline can't be kept, where admission is strict."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from chairlift.engine.worker_config import WorkerConfig
from tests.running import GENERATIONS, EngineThread, metric, wait_until
from tests.server.jobs.builders import a_job, job_id, opened

JOBS = "/v1/jobs"


@pytest.fixture(scope="module")
def strict() -> Iterator[httpx.Client]:
    """A step takes 20 ms, a picture 10 of them."""
    with (
        EngineThread(WorkerConfig(model="fake:0.02", strict=True)) as engine,
        engine.serve() as http,
    ):
        yield http


@pytest.mark.parametrize("path", [JOBS, GENERATIONS])
def test_it_is_refused_at_once_and_may_be_asked_for_again(strict: httpx.Client, path: str) -> None:
    body = {"prompt": "a boat", "seed": 1}
    headers = {"Idempotency-Key": f"by noon, {path}"}
    refused = strict.post(path, json=body | {"deadline_ms": 5}, headers=headers)
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["code"], error["param"]) == ("deadline_unattainable", "deadline_ms")
    assert error["message"].startswith("deadline_ms is 5; the pictures are predicted in ")
    assert strict.get(JOBS).json()["data"] == []
    again = strict.post(path, json=body | {"deadline_ms": 60_000}, headers=headers)
    assert again.status_code in (200, 202)
    [job] = strict.get(JOBS).json()["data"]
    strict.get(f"{JOBS}/{job['id']}", params={"wait_s": 60})
    assert strict.delete(f"{JOBS}/{job['id']}").status_code == 200


def test_all_who_repeat_a_key_at_once_are_refused_alike(strict: httpx.Client) -> None:
    body = {"prompt": "a boat", "seed": 1, "deadline_ms": 5}

    def submit(_: int) -> httpx.Response:
        return strict.post(JOBS, json=body, headers={"Idempotency-Key": "all at once"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(24)))
    assert {answer.status_code for answer in answers} == {429}
    assert {answer.json()["error"]["code"] for answer in answers} == {"deadline_unattainable"}
    assert strict.get(JOBS).json()["data"] == []


def test_a_long_tick_is_waited_for() -> None:
    with (
        EngineThread(WorkerConfig(model="fake:1.5", strict=True)) as engine,
        engine.serve() as http,
    ):
        first = http.post(JOBS, json={"prompt": "a long ride", "num_inference_steps": 50}).json()
        running = {"status": ["running"]}
        wait_until(lambda: http.get(JOBS, params=running).json()["data"])
        refused = http.post(JOBS, json={"prompt": "a boat", "deadline_ms": 5})
        assert refused.status_code == 429
        assert http.post(f"{JOBS}/{first['id']}/cancel").status_code == 200


def test_a_job_that_was_acknowledged_is_not_refused_after_a_restart(tmp_path: Path) -> None:
    async def accept() -> None:
        async with opened(tmp_path) as store:
            job = a_job(1)
            assert job.request is not None
            await store.add(replace(job, request=replace(job.request, deadline=0.005)))

    asyncio.run(accept())
    with (
        EngineThread(WorkerConfig(model="fake:0.02", strict=True)) as engine,
        engine.serve(folder=tmp_path) as http,
    ):
        answer = http.get(f"{JOBS}/{job_id(1)}", params={"wait_s": 60}).json()
        assert answer["status"] == "succeeded"


def test_who_is_refused_is_counted_as_refused_and_not_as_failed(strict: httpx.Client) -> None:
    refused = 'chairlift_rejected_total{reason="deadline_unattainable"}'
    failed = 'chairlift_requests_total{outcome="failed"}'
    before = metric(strict, refused), metric(strict, failed)
    body = {"prompt": "a boat", "deadline_ms": 5}
    assert [strict.post(path, json=body).status_code for path in (JOBS, GENERATIONS)] == [429, 429]
    assert (metric(strict, refused), metric(strict, failed)) == (before[0] + 2, before[1])
