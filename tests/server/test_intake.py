"""Heads and bodies that are refused before the application sees them."""

from __future__ import annotations

import socket
from http.client import HTTPResponse
from typing import Any

import httpx
import pytest

from chairlift.engine.client import EngineClient
from chairlift.server.limits import Limits
from tests.running import GENERATIONS, EngineThread, connect, generate, metric, wait_until

HEAD = f"POST {GENERATIONS} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
BODY = b'{"prompt": "a boat"}'
TIMEOUTS = 'chairlift_rejected_total{reason="request_timeout"}'


def fields(answer: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    return error


def send_half_a_body(caller: socket.socket) -> None:
    caller.sendall(f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY[:-5])


def test_a_body_that_stops_in_the_middle_is_answered_and_the_connection_ends(
    engine: EngineThread,
) -> None:
    with engine.serve(limits=Limits(body_seconds=0.1)) as http:
        with connect(http) as caller:
            send_half_a_body(caller)
            with HTTPResponse(caller) as answer:
                answer.begin()
                assert answer.status == 408
                assert answer.headers["Connection"] == "close"
                assert answer.headers["X-Request-Id"]
                assert b'"code":"request_timeout"' in answer.read()
            assert caller.recv(1) == b""
        assert metric(http, TIMEOUTS) == 1
        assert generate(http)["data"]


def test_a_body_may_come_in_parts(engine: EngineThread) -> None:
    with engine.serve() as http, connect(http) as caller:
        send_half_a_body(caller)
        assert httpx.get(f"{http.base_url}/health").status_code == 200
        caller.sendall(BODY[-5:])
        with HTTPResponse(caller) as answer:
            answer.begin()
            assert answer.status == 200


def test_who_goes_away_in_the_middle_of_a_body_is_not_counted_as_refused(
    http: httpx.Client, client: EngineClient
) -> None:
    def refused() -> list[str]:
        lines = http.get("/metrics").text.splitlines()
        return [line for line in lines if line.startswith("chairlift_rejected_total")]

    before = refused()
    with connect(http) as caller:
        send_half_a_body(caller)
        caller.shutdown(socket.SHUT_WR)
        assert caller.recv(1) == b""
    assert refused() == before
    assert client.pending_rows == 0


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({f"x-{index}": "" for index in range(200)}, "headers; at most 100 are allowed"),
        ({"x": "x" * 17_000}, "the head is larger than 16384 bytes"),
    ],
    ids=["many", "long"],
)
def test_a_head_that_is_too_large_is_refused(
    http: httpx.Client, headers: dict[str, str], message: str
) -> None:
    answer = http.get("/health", headers=headers)
    assert answer.status_code == 431
    assert fields(answer)["code"] == "head_too_large"
    assert fields(answer)["message"].endswith(message)
    assert http.get("/health").status_code == 200


def test_a_path_that_is_too_long_is_refused(http: httpx.Client) -> None:
    assert http.get("/health?" + "x" * 17_000).status_code == 431


def test_who_has_not_sent_the_body_does_not_delay_the_end(engine: EngineThread) -> None:
    limits = Limits(body_seconds=3600, farewell_seconds=0.05)
    with engine.serve(limits=limits) as http:
        caller = connect(http)
        send_half_a_body(caller)
        wait_until(lambda: http.get("/health").status_code == 200)
    with caller, HTTPResponse(caller) as answer:
        answer.begin()
        assert answer.status == 503
