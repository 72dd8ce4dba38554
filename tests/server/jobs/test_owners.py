"""What came with an API key is its bearer's alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from chairlift.engine.client import EngineClient
from chairlift.server.access import Access, owner_of
from tests.running import GENERATIONS, LONG, EngineThread, wait_until

JOBS = "/v1/jobs"
KEYS = Access(keys=("ada-secret", "bob-secret"))
ADA, BOB = ({"Authorization": f"Bearer {key}"} for key in KEYS.keys)


@pytest.fixture(scope="module")
def locked(engine: EngineThread) -> Iterator[httpx.Client]:
    with engine.serve(access=KEYS) as http:
        yield http


def submit(http: httpx.Client, key: str | None = None, **fields: Any) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return http.post(JOBS, json={"prompt": "a secret", "seed": 1} | fields, headers=headers)


@contextmanager
def bearing(http: httpx.Client, key: dict[str, str]) -> Iterator[httpx.Client]:
    http.headers.update(key)
    yield http
    del http.headers["Authorization"]


def submitted_by_ada(http: httpx.Client, **fields: Any) -> str:
    with bearing(http, ADA):
        answer = submit(http, **fields)
    assert answer.status_code == 202, answer.text
    id: str = answer.json()["id"]
    return id


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("DELETE", ""), ("GET", "/events"), ("POST", "/cancel"), ("GET", "/images/0")],
)
def test_a_job_is_unknown_to_the_bearers_of_other_keys(
    locked: httpx.Client, method: str, path: str
) -> None:
    id = submitted_by_ada(locked)
    with bearing(locked, ADA):
        wait_until(lambda: locked.get(f"{JOBS}/{id}").json()["status"] == "succeeded")
    with bearing(locked, BOB):
        foreign = locked.request(method, f"{JOBS}/{id}{path}")
        missing = locked.request(method, f"{JOBS}/job_{32 * '0'}{path}")
    assert foreign.status_code == missing.status_code == 404
    assert foreign.json()["error"]["code"] == missing.json()["error"]["code"] == "job_not_found"
    assert "secret" not in foreign.text


def test_lists_have_ones_own_jobs_only(engine: EngineThread) -> None:
    with engine.serve(access=KEYS) as http:
        ids = [submitted_by_ada(http, user="u") for _ in range(3)]
        with bearing(http, BOB):
            own = submit(http, user="u").json()["id"]
            for params in ({}, {"user": "u"}, {"limit": 1}):
                answer = http.get(JOBS, params=params).json()
                assert [job["id"] for job in answer["data"]] == [own]
                assert not answer["has_more"]
            assert http.get(JOBS, params={"after": ids[0]}).status_code == 400
        with bearing(http, ADA):
            assert [job["id"] for job in http.get(JOBS).json()["data"]] == ids[::-1]


@pytest.mark.parametrize("path", [JOBS, GENERATIONS])
def test_two_keys_may_have_equal_idempotency_keys(locked: httpx.Client, path: str) -> None:
    def post(prompt: str) -> httpx.Response:
        headers = {"Idempotency-Key": f"order-1 {path}"}
        return locked.post(path, json={"prompt": prompt, "seed": 1}, headers=headers)

    with bearing(locked, ADA):
        adas = post("of Ada")
    with bearing(locked, BOB):
        bobs, again, other = post("of Bob"), post("of Bob"), post("of Ada")
    assert (adas.is_success, bobs.is_success, again.is_success) == (True, True, True)
    assert other.status_code == 422
    if path == JOBS:
        assert adas.json()["id"] != bobs.json()["id"] == again.json()["id"]
    else:
        assert adas.json()["data"] != bobs.json()["data"] == again.json()["data"]


def test_a_request_on_the_lift_is_ended_by_its_own_caller_only(
    slow_engine: EngineThread, slow_client: EngineClient
) -> None:
    with slow_engine.serve(access=KEYS) as http:
        id = submitted_by_ada(http, **LONG | {"n": 2})
        with bearing(http, BOB):
            refused = http.post(f"/v1/requests/{id}/cancel")
            assert refused.status_code == 404
            assert refused.json()["error"]["code"] == "request_not_found"
        assert id in slow_client.rides
        with bearing(http, ADA):
            assert http.post(f"/v1/requests/{id}/cancel").status_code == 200
        wait_until(lambda: id not in slow_client.rides)


def test_another_programs_clients_end_their_own_requests_only(
    slow_engine: EngineThread, slow_client: EngineClient
) -> None:
    body = {"prompt": "a secret", "steps": 150, "width": 512, "height": 512}
    with (
        slow_engine.serve(access=KEYS, compat="a1111") as http,
        ThreadPoolExecutor(1) as callers,
    ):
        waiting = callers.submit(http.post, "/sdapi/v1/txt2img", json=body, headers=ADA)
        wait_until(lambda: slow_client.rides)
        for key, jobs in ((BOB, 0), (ADA, 1)):
            seen = http.get("/sdapi/v1/progress", headers=key).json()
            assert seen["state"]["job_count"] == jobs
            assert slow_client.rides
            http.post("/sdapi/v1/interrupt", headers=key).raise_for_status()
        assert waiting.result().json()["images"] == []


def test_jobs_are_ones_own_wherever_the_key_stands_in_the_list(
    engine: EngineThread, tmp_path: Path
) -> None:
    with engine.serve(access=KEYS, folder=tmp_path) as http:
        id = submitted_by_ada(http)
    with engine.serve(access=Access(keys=KEYS.keys[::-1]), folder=tmp_path) as http:
        with bearing(http, ADA):
            assert http.get(f"{JOBS}/{id}").status_code == 200
        with bearing(http, BOB):
            assert http.get(f"{JOBS}/{id}").status_code == 404
    with engine.serve(folder=tmp_path) as http:  # Who needs no key sees everything.
        assert [job["id"] for job in http.get(JOBS).json()["data"]] == [id]
        assert http.get(f"{JOBS}/{id}").status_code == 200
    assert "secret" not in owner_of("ada-secret")
    assert b"ada-secret" not in b"".join(
        path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    )
