"""Callers who hold connections: they are ended."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from chairlift.server.connections import HttpConfig
from chairlift.server.limits import Limits
from chairlift.server.serve import bind
from tests.running import PATIENCE_SECONDS, wait_until

LARGE = 64 * 2**20
GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: test\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SHORT = 0.05
"""Seconds."""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers how long the body is; or late, or with very much."""
    assert scope["type"] == "http"
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        more = message["more_body"]
    if scope["path"] == "/late":
        await asyncio.sleep(5 * SHORT)
    body = bytes(LARGE) if scope["path"] == "/large" else str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class Running:
    """A server that runs, and those who call it."""

    def __init__(self, server: uvicorn.Server, address: Any) -> None:
        self.server = server
        self._address = address

    def connect(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=PATIENCE_SECONDS)

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)


@contextmanager
def running(limits: Limits) -> Iterator[Running]:
    """A server that ends when all of its connections have."""
    config = HttpConfig(app, limits, shutdown_seconds=PATIENCE_SECONDS)
    server = uvicorn.Server(config)
    with bind("127.0.0.1", 0) as listening, ThreadPoolExecutor(1) as pool:
        address = listening.getsockname()
        serving = pool.submit(asyncio.run, server.serve(sockets=[listening]))
        try:
            yield Running(server, address)
        finally:
            server.should_exit = True
            serving.result(PATIENCE_SECONDS)


def read_answer(caller: socket.socket) -> tuple[int, Any]:
    with HTTPResponse(caller) as answer:
        answer.begin()
        return answer.status, json.load(answer)


def read_to_the_end(caller: socket.socket) -> int:
    """The number of bytes that come before the connection ends."""
    size = 0
    try:
        while part := caller.recv(2**20):
            size += len(part)
    except ConnectionResetError:
        pass
    return size


def send_until_answered(caller: socket.socket, part: bytes) -> None:
    try:
        while not select.select([caller], [], [], 0.001)[0]:
            caller.sendall(part)
    except (BrokenPipeError, ConnectionResetError):
        pass


# ---------------------------------------------------------------------- slow senders


@pytest.mark.parametrize("sent", [b"", b"GE", GET[:-2]], ids=["nothing", "a verb", "no end"])
def test_who_sends_no_whole_head_is_disconnected(sent: bytes) -> None:
    with running(Limits(head_seconds=SHORT)) as server, server.connect() as caller:
        caller.sendall(sent)
        assert caller.recv(1) == b""


def test_who_sends_a_head_byte_by_byte_is_disconnected() -> None:
    with running(Limits(head_seconds=2 * SHORT)) as server, server.connect() as caller:
        caller.sendall(b"GET / HTTP/1.1\r\nx: ")
        send_until_answered(caller, b"x")
        assert read_to_the_end(caller) == 0


def test_who_begins_a_second_head_must_end_it() -> None:
    with running(Limits(head_seconds=SHORT)) as server, server.connect() as caller:
        caller.sendall(GET)
        assert read_answer(caller) == (200, 0)
        caller.sendall(GET[:-2])
        assert caller.recv(1) == b""


def test_a_connection_may_rest_between_two_requests() -> None:
    with running(Limits(head_seconds=SHORT)) as server, server.connect() as caller:
        for _ in range(2):
            caller.sendall(GET)
            assert read_answer(caller) == (200, 0)
            time.sleep(3 * SHORT)


def test_who_waits_for_an_answer_is_not_disconnected() -> None:
    with running(Limits(head_seconds=SHORT)) as server, server.connect() as caller:
        caller.sendall(GET.replace(b"/ ", b"/late "))
        assert read_answer(caller) == (200, 0)


# ---------------------------------------------------------------------- without end, or nonsense


@pytest.mark.parametrize(
    "head",
    [b"GET / HTTP/1.1\r\nx: ", b"GET /", CHUNKED + b"1\r\n1\r\n0\r\nx: "],
    ids=["header", "path", "trailer"],
)
def test_a_head_without_end_is_refused(head: bytes) -> None:
    limits = Limits(max_head_bytes=1000)
    with running(limits) as server, server.connect() as caller:
        caller.sendall(head)
        send_until_answered(caller, b"x" * 100)
        status, body = read_answer(caller)
        assert status == 431
        assert body["error"]["code"] == "head_too_large"
        assert body["error"]["message"] == "the head is larger than 1000 bytes"


def test_a_body_in_small_chunks_is_no_long_head() -> None:
    limits = Limits(max_head_bytes=1000)
    with running(limits) as server, server.connect() as caller:
        caller.sendall(CHUNKED)
        for _ in range(100):
            caller.sendall(b"1\r\nx\r\n" * 30)
        caller.sendall(b"0\r\n\r\n")
        assert read_answer(caller) == (200, 3000)


def test_what_is_not_http_is_refused_in_json() -> None:
    with running(Limits()) as server, server.connect() as caller:
        caller.sendall(b"this is not HTTP\r\n\r\n")
        status, body = read_answer(caller)
        assert status == 400
        assert body["error"]["code"] == "invalid_value"
        assert caller.recv(1) == b""


# ---------------------------------------------------------------------- too many


def test_no_more_connections_than_the_bound() -> None:
    with running(Limits(max_streams=1, spare_connections=1)) as server:
        with server.connect() as first, server.connect():
            wait_until(lambda: server.connections == 2)
            with server.connect() as third, HTTPResponse(third) as answer:
                answer.begin()
                assert answer.status == 503
                assert answer.headers["Retry-After"] == "1"
                assert json.load(answer)["error"]["code"] == "unavailable"
            first.sendall(GET)
            assert read_answer(first) == (200, 0)
        wait_until(lambda: server.connections == 0)
        with server.connect() as caller:
            caller.sendall(GET)
            assert read_answer(caller) == (200, 0)


# ---------------------------------------------------------------------- slow readers


def test_who_hardly_reads_is_disconnected() -> None:
    with running(Limits(reader_seconds=SHORT)) as server, server.connect() as caller:
        caller.sendall(GET.replace(b"/ ", b"/large "))
        assert caller.recv(1)
        wait_until(lambda: server.connections == 0)
        assert read_to_the_end(caller) < LARGE


def test_who_reads_slowly_gets_everything() -> None:
    limits = Limits(reader_seconds=SHORT / 10, reader_bytes_per_second=0)
    with running(limits) as server, server.connect() as caller:
        caller.sendall(GET.replace(b"/ ", b"/large "))
        caller.recv(1)
        time.sleep(SHORT)
        caller.shutdown(socket.SHUT_WR)
        assert read_to_the_end(caller) > LARGE


# ---------------------------------------------------------------------- the end of the server


@pytest.mark.parametrize("sent", [b"", b"GE"], ids=["nothing", "half a head"])
def test_who_has_sent_no_request_does_not_delay_the_end(sent: bytes) -> None:
    with ExitStack() as calling:
        with running(Limits(head_seconds=3600)) as server:
            caller = calling.enter_context(server.connect())
            caller.sendall(sent)
            wait_until(lambda: server.connections == 1)
        assert caller.recv(1) == b""


def test_who_has_not_sent_the_body_does_not_delay_the_end() -> None:
    with ExitStack() as calling:
        with running(Limits(farewell_seconds=SHORT)) as server:
            caller = calling.enter_context(server.connect())
            caller.sendall(POST + b"Content-Length: 100\r\n\r\n half of it")
            wait_until(lambda: server.server.server_state.tasks)
        status, body = read_answer(caller)
        assert status == 503
        assert body["error"]["message"] == "the server is shutting down"


def test_who_waits_for_an_answer_gets_it_before_the_end() -> None:
    with ExitStack() as calling:
        with running(Limits(farewell_seconds=SHORT)) as server:
            caller = calling.enter_context(server.connect())
            caller.sendall(GET.replace(b"/ ", b"/late "))
            wait_until(lambda: server.server.server_state.tasks)
        assert read_answer(caller) == (200, 0)
