"""Bytes that are no HTTP, or no good one, on the server's port."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator
from socket import SHUT_WR

import httpx
import psutil
import pytest
from hypothesis import given
from hypothesis.strategies import SearchStrategy, binary, lists, one_of, sampled_from, tuples

from tests.fuzz.mutations import mutated, tried
from tests.running import PATIENCE_SECONDS, EngineThread, connect, generate, wait_until

ENOUGH_SECONDS = 0.1

BODIES = (
    {"prompt": "a boat", "num_inference_steps": 1},
    {"prompt": "a boat", "stream": True, "partial_images": 2, "num_inference_steps": 3},
    {"prompt": "é\ud7ff", "loras": [{"name": "x", "scale": 1e9}], "seed": 2**63},
)
TARGETS = (
    b"GET /v1/models",
    b"GET /v1/jobs?limit=3&status=queued&after=job_1",
    b"GET /v1/jobs/job_00000000000000000000000000000000/images/0",
    b"GET /metrics",
    b"GET /page/main.js",
    b"POST /v1/images/generations",
    b"POST /v1/jobs",
    b"POST /v1/requests/req_1/cancel",
    b"PUT /v1/policy",
)
HEADERS = (
    b"Authorization: Bearer key",
    b"Idempotency-Key: order-1",
    b"X-Request-Id: caller-7",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13",
    b"Origin: https://example.com",
    b"Content-Length: 99999999999999999999",
)


def _request(target: bytes, headers: list[bytes], content: bytes) -> bytes:
    head = [target + b" HTTP/1.1", b"Host: 127.0.0.1", b"Content-Type: application/json"]
    head.append(b"Connection: close")
    head += [b"Content-Length: %d" % len(content), *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + content


CONTENTS = sampled_from([json.dumps(body).encode() for body in BODIES])
GOOD = tuples(sampled_from(TARGETS), lists(sampled_from(HEADERS), max_size=2), CONTENTS).map(
    lambda parts: _request(*parts)
)
BAD_BODIES = tuples(
    sampled_from([target for target in TARGETS if not target.startswith(b"GET")]),
    lists(sampled_from(HEADERS[:3]), max_size=2),
    one_of(mutated(CONTENTS), binary(max_size=100)),
).map(lambda parts: _request(*parts))


def statuses(http: httpx.Client, said: bytes) -> list[int]:
    """Those of all answers. A server that waits for more is told at last that there is none."""
    heard = bytearray()
    # The server may hang up before everything is said.
    with connect(http) as caller, contextlib.suppress(ConnectionError):
        caller.settimeout(ENOUGH_SECONDS)
        caller.sendall(said)
        with contextlib.suppress(TimeoutError):
            while part := caller.recv(2**16):
                heard += part
        caller.settimeout(PATIENCE_SECONDS)
        caller.shutdown(SHUT_WR)
        while part := caller.recv(2**16):
            heard += part
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", heard)]


@pytest.fixture(scope="module")
def patient(engine: EngineThread) -> Iterator[httpx.Client]:
    """A server that has room for all that is tried."""
    with engine.serve(max_queue=100_000) as http:
        yield http


@pytest.mark.parametrize(
    "requests",
    [
        binary(max_size=500),
        mutated(GOOD),
        BAD_BODIES,
        lists(mutated(GOOD), max_size=5).map(b"".join),
    ],
    ids=["any bytes", "mutated requests", "mutated bodies", "pipelines"],
)
def test_whatever_comes_is_refused_or_answered_and_the_next_is_served(
    patient: httpx.Client, caplog: pytest.LogCaptureFixture, requests: SearchStrategy[bytes]
) -> None:
    this, answers = psutil.Process(), Counter[int]()
    generate(patient)
    before = this.num_fds()

    @tried(50)
    @given(said=requests)
    def say(said: bytes) -> None:
        found = statuses(patient, said)
        answers.update(found)
        assert [status for status in found if status >= 500] == []

    say()
    assert answers[400]
    generate(patient)
    wait_until(lambda: this.num_fds() <= before)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
