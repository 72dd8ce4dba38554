"""One line a request, with what operators want to know and no prompt."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chairlift.engine.client import EngineClient
from chairlift.engine.ride import Ride
from chairlift.errors import NumericalError
from chairlift.server.logs import RequestLog
from chairlift.server.request_id import HEADER
from tests.builders import a_request
from tests.running import GENERATIONS, LONG, EngineThread, generate, long_request, wait_until

SECRET = "unmistakable"
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(
    client: EngineClient, slow_client: EngineClient, caplog: pytest.LogCaptureFixture
) -> Iterator[Lines]:
    """The fields of the lines so far."""
    caplog.set_level(logging.INFO, "chairlift.requests")
    log = RequestLog()
    clients = (client, slow_client)
    for engine in clients:
        engine.on_end.append(log)

    def read() -> list[dict[str, Any]]:
        return [getattr(record, "fields", {}) for record in caplog.records]

    yield read
    for engine in clients:
        engine.on_end.remove(log)


def line_of(lines: Lines, **fields: Any) -> dict[str, Any]:
    """The line with these fields, once it is there. Requests of the test before may end late."""

    def found() -> list[dict[str, Any]]:
        return [line for line in lines() if fields.items() <= line.items()]

    wait_until(found)
    [line] = found()
    return line


def test_a_finished_request_has_a_line_with_its_times(http: httpx.Client, lines: Lines) -> None:
    body = {"prompt": SECRET, "n": 2, "size": "96x72", "num_inference_steps": 7}
    answer = http.post(GENERATIONS, json=body, headers={HEADER: "caller-7"}).json()
    line = line_of(lines, request_id="caller-7")
    expected = {
        "outcome": "finished",
        "kind": "images",
        "code": None,
        "size": "96x72",
        "frames": 1,
        "n": 2,
        "steps": 7,
        "sampler": "euler",
        "crashes": 0,
    }
    assert expected.items() <= line.items()
    assert line["id"].startswith("req_")
    stages = ("queue_s", "encode_s", "denoise_s", "decode_s")
    assert [line[name] for name in stages] == [
        pytest.approx(answer["timings"][name], abs=1e-4) for name in stages
    ]
    assert line["total_s"] >= line["denoise_s"]
    assert line["predicted_s"] > 0
    assert SECRET not in json.dumps(line)


def test_a_line_says_with_how_many_rows_it_rode(
    slow_http: httpx.Client, slow_client: EngineClient, lines: Lines
) -> None:
    with long_request(slow_http, slow_client):
        generate(slow_http, size=LONG["size"], num_inference_steps=4)
        short = line_of(lines, steps=4)
    assert short["ticks"] == 4
    assert short["rows_max"] == LONG["n"] + 1
    assert 1 < short["rows_mean"] <= short["rows_max"]


def test_streams_and_jobs_are_told_apart(http: httpx.Client, lines: Lines) -> None:
    body = {"prompt": "a boat"}
    http.post(GENERATIONS, json=body | {"stream": True}, headers={HEADER: "of-a-stream"})
    job = http.post("/v1/jobs", json=body, headers={HEADER: "of-a-job"}).json()
    assert line_of(lines, request_id="of-a-stream")["kind"] == "stream"
    assert line_of(lines, request_id="of-a-job", id=job["id"])["kind"] == "job"


def test_a_cancelled_request_has_a_line_without_stages(
    slow_http: httpx.Client, slow_client: EngineClient, lines: Lines
) -> None:
    with long_request(slow_http, slow_client):
        [id] = slow_client.rides
    line = line_of(lines, id=id)
    assert (line["outcome"], line["code"]) == ("cancelled", "cancelled")
    assert line["denoise_s"] is None
    assert line["total_s"] > 0
    assert line["ticks"] > 0


def test_a_failed_request_has_the_code_of_its_error(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        loop = asyncio.get_running_loop()
        ride = Ride(a_request(prompt=SECRET), loop.create_future(), loop.time())
        ride.answer.set_exception(NumericalError(SECRET))
        RequestLog()(ride)

    with caplog.at_level(logging.INFO, "chairlift.requests"):
        asyncio.run(fail())
    [record] = caplog.records
    fields: dict[str, Any] = getattr(record, "fields", {})
    assert (fields["outcome"], fields["code"]) == ("failed", "numerical_error")
    assert (fields["ticks"], fields["rows_mean"], fields["rows_max"]) == (0, None, None)
    assert SECRET not in json.dumps(fields) + record.getMessage()


def test_a_refused_request_has_a_line_with_the_reason(http: httpx.Client, lines: Lines) -> None:
    answer = http.post(GENERATIONS, json={"prompt": SECRET, "n": SECRET})
    assert line_of(lines, request_id=answer.headers[HEADER]) == {
        "outcome": "refused",
        "request_id": answer.headers[HEADER],
        "code": "invalid_value",
        "param": "n",
        "method": "POST",
        "path": GENERATIONS,
    }


def test_prompts_are_logged_only_when_that_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    async def end() -> None:
        loop = asyncio.get_running_loop()
        ride = Ride(a_request(prompt=SECRET), loop.create_future(), loop.time())
        ride.answer.cancel()
        RequestLog()(ride)
        RequestLog(prompts=True)(ride)

    with caplog.at_level(logging.INFO, "chairlift.requests"):
        asyncio.run(end())
    fields = [getattr(record, "fields", {}) for record in caplog.records]
    assert [line.get("prompt") for line in fields] == [None, SECRET]


def test_a_job_that_goes_on_after_the_restart_has_not_failed(
    engine: EngineThread, lines: Lines
) -> None:
    with engine.serve() as http:
        job = http.post("/v1/jobs", json=LONG).json()
    line = line_of(lines, id=job["id"])
    assert (line["outcome"], line["code"], line["kind"]) == ("kept", None, "job")


def test_a_server_writes_nothing_but_json_if_told_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chairlift", "serve", "fake", "--port", "0"]
    command += ["--log-format", "json", "--data-dir", str(tmp_path)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    with server:
        ready = json.loads(server.stderr.readline())
        url = ready["message"].rpartition(" ")[2]
        with httpx.Client(base_url=url) as http:
            generate(http, prompt=SECRET)
            http.post(GENERATIONS, content=b"{", headers={HEADER: "broken"})
        server.send_signal(signal.SIGTERM)
        lines = [json.loads(line) for line in server.stderr]
    assert server.returncode == 0
    assert [line["outcome"] for line in lines] == ["finished", "refused"]
    assert lines[1]["request_id"] == "broken"
    assert SECRET not in json.dumps(lines)
