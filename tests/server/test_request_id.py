"""``X-Request-Id`` comes in, and goes out with every answer."""

from __future__ import annotations

import asyncio
import logging
import re

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from chairlift.engine.client import EngineClient
from chairlift.server.app import create_app
from chairlift.server.jobs.manager import JobManager
from chairlift.server.limits import Limits
from chairlift.server.request_id import HEADER, RequestIds, name_request, request_id
from tests.running import GENERATIONS, EngineThread

FRESH = re.compile(r"[0-9a-f]{32}")


@pytest.mark.parametrize("given", ["7", "a" * 128, "Trace.1_2:3-4"])
def test_an_acceptable_id_is_kept(http: httpx.Client, given: str) -> None:
    assert http.get("/health", headers={HEADER: given}).headers[HEADER] == given


@pytest.mark.parametrize("given", ["", "a" * 129, "a b", "a\tb", "<b>", "a;b", "é", "a\x7f"])
def test_any_other_is_replaced(http: httpx.Client, given: str) -> None:
    answer = http.get("/health", headers={HEADER: given.encode("latin-1")})
    assert FRESH.fullmatch(answer.headers[HEADER])


def test_every_request_without_one_gets_its_own(http: httpx.Client) -> None:
    ids = {http.get("/health").headers[HEADER] for _ in range(3)}
    assert len(ids) == 3
    assert all(map(FRESH.fullmatch, ids))


def test_a_stream_has_it(http: httpx.Client) -> None:
    body = {"prompt": "a boat", "stream": True}
    answer = http.post(GENERATIONS, json=body, headers={HEADER: "a-stream"})
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.headers.get_list(HEADER) == ["a-stream"]


def test_every_refusal_has_it(engine: EngineThread) -> None:
    named = {HEADER: "refused"}
    with engine.serve(api_key="secret") as http:
        answers = [
            http.get("/v1/models", headers=named),
            http.get("/nowhere", headers=named | {"Authorization": "Bearer secret"}),
            http.post(
                GENERATIONS,
                content=b" " * (Limits().max_body_bytes + 1),
                headers=named | {"Authorization": "Bearer secret"},
            ),
        ]
    assert [answer.status_code for answer in answers] == [401, 404, 413]
    assert {answer.headers[HEADER] for answer in answers} == {"refused"}


def test_an_error_that_nobody_expected_has_it(
    engine: EngineThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(client: EngineClient) -> str:
        raise AssertionError("nobody expected this")

    monkeypatch.setattr(EngineClient, "policy", property(stumble))

    async def visit(jobs: JobManager) -> httpx.Response:
        app = create_app(engine.client, jobs)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://lift") as http:
            return await http.get("/v1/policy", headers={HEADER: "unlucky"})

    with engine.jobs() as jobs:
        answer = engine.wait_for(visit(jobs))
    assert answer.status_code == 500
    assert answer.headers[HEADER] == "unlucky"


def test_what_is_logged_on_the_way_has_it(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        logging.getLogger("lift").warning("inside")
        await asyncio.create_task(log_later())

    async def log_later() -> None:
        logging.getLogger("lift").warning("in a task", extra={"fields": {"steps": 20}})

    async def visit(given: str) -> None:
        scope = {"type": "http", "headers": [(b"x-request-id", given.encode())]}
        await RequestIds(app)(scope, no_message, no_answer)  # type: ignore[arg-type]

    async def visit_both() -> None:
        await asyncio.gather(visit("one"), visit("two"))
        logging.getLogger("lift").warning("outside")

    caplog.handler.addFilter(name_request)
    try:
        asyncio.run(visit_both())
    finally:
        caplog.handler.removeFilter(name_request)
    fields = [getattr(record, "fields", {}) for record in caplog.records]
    assert fields == [
        {"request_id": "one"},
        {"request_id": "two"},
        {"request_id": "one", "steps": 20},
        {"request_id": "two", "steps": 20},
        {},
    ]
    assert request_id.get() is None


async def no_message() -> None:
    raise AssertionError("nobody asks")


async def no_answer(message: object) -> None:
    raise AssertionError("nobody answers")
