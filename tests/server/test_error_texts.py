"""What fails inside is told in the server's own words: no paths, addresses or tracebacks. What the
engine says of rows that fail is in ``tests/engine/test_traces.py``.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import aiosqlite
import httpx
import pytest

from chairlift.engine.client import EngineClient
from chairlift.errors import StorageFailed
from chairlift.server.jobs.manager import JobManager
from chairlift.server.jobs.writer import storage_failed
from tests.running import GENERATIONS, wait_until

LEAK = "/home/operator/secret at 0x7f3a5c"
BODY = {"prompt": "a boat"}


def raising(error: Exception) -> Any:
    """Whatever it is called with."""

    def fail(*arguments: object, **named: object) -> NoReturn:
        raise error

    return fail


def assert_is_told(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    for word in ("secret", "0x", "Traceback", "Error(", ".py"):
        assert word not in answer.text + str(answer.headers)


@pytest.fixture
def job(http: httpx.Client) -> str:
    """The URL of one that is done."""
    id = http.post("/v1/jobs", json=BODY).json()["id"]
    wait_until(lambda: http.get(f"/v1/jobs/{id}").json()["status"] == "succeeded")
    return f"/v1/jobs/{id}"


def test_of_a_database_that_fails(
    http: httpx.Client, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in ("execute", "execute_fetchall"):
        error = sqlite3.OperationalError(f"unable to open {LEAK}")
        monkeypatch.setattr(aiosqlite.Connection, method, raising(error))
    once = {"Idempotency-Key": "a key"}
    for answer in (
        http.get(job),
        http.get(f"{job}/events"),
        http.get("/v1/jobs"),
        http.post("/v1/jobs", json=BODY),
        http.post("/v1/jobs", json=BODY, headers=once),
        http.post(GENERATIONS, json=BODY, headers=once),
    ):
        assert_is_told(answer, 503, "storage_failed")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (sqlite3.SQLITE_FULL, "the disk is full"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "the database is locked"),
        (sqlite3.SQLITE_IOERR_WRITE, "the disk fails"),
        (sqlite3.SQLITE_CORRUPT, "the database fails"),
        (None, "the database fails"),
    ],
)
def test_the_reason_is_said_without_sqlites_words(
    code: int | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    error = sqlite3.OperationalError(LEAK)
    if code is not None:
        error.sqlite_errorcode = code
    failed = storage_failed("the job can't be stored", error)
    assert isinstance(failed, StorageFailed)
    assert failed.message == f"the job can't be stored: {reason}"
    assert LEAK in caplog.text


def test_of_a_picture_that_cannot_be_read(
    http: httpx.Client, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = PermissionError(13, "Permission denied", LEAK)
    monkeypatch.setattr(Path, "open", raising(error))
    assert_is_told(http.get(f"{job}/images/0"), 503, "storage_failed")


def test_of_a_body_that_cannot_be_read(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = SimpleNamespace(loads=raising(OSError(LEAK)))
    monkeypatch.setattr("starlette.requests.json", broken)
    answer = http.post("/v1/jobs", json=BODY)
    assert_is_told(answer, 400, "invalid_value")
    assert "the body can't be read" in answer.text


def test_of_what_nobody_expected(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobManager, "page", raising(RuntimeError(LEAK)))
    assert_is_told(http.get("/v1/jobs"), 500, "internal_error")


def test_of_an_engine_that_cannot_be_started_again(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EngineClient, "failure", property(lambda self: LEAK))
    assert_is_told(http.get("/health"), 503, "unavailable")
