"""How much is taken in: the queue of a key, the work of a request, event streams, open files."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.types import Message

from chairlift.engine.client import EngineClient
from chairlift.engine.worker_config import WorkerConfig
from chairlift.errors import ConfigurationError, TooManyStreams
from chairlift.server.access import Access
from chairlift.server.events import EventStream, Streams
from chairlift.server.limits import RESERVED_FILES, Limits, fit_to_open_files
from chairlift.server.serve import ServeConfig, serve
from tests.running import GENERATIONS, LONG, EngineThread, generate, metric, wait_until
from tests.server.sse import event_stream

OPEN = "chairlift_streams_open"
SMALL = {"prompt": "a boat", "size": "64x64", "num_inference_steps": 2}


def error(answer: httpx.Response) -> dict[str, Any]:
    fields: dict[str, Any] = answer.json()["error"]
    return fields


# ---------------------------------------------------------------------- the queue


def test_a_full_queue_of_one_key_leaves_room_for_the_others(
    slow_engine: EngineThread, slow_client: EngineClient
) -> None:
    limits, access = Limits(max_queue_per_key=11), Access(keys=("one", "two"))
    with slow_engine.serve(limits=limits, access=access) as http:
        first, second = ({"Authorization": f"Bearer {key}"} for key in access.keys)
        job = http.post("/v1/jobs", json=LONG, headers=first).json()
        refused = http.post(GENERATIONS, json=SMALL | {"n": 2}, headers=first)
        fitting = http.post(GENERATIONS, json=SMALL, headers=first)
        other = http.post(GENERATIONS, json=SMALL | {"n": 2}, headers=second)
        http.post(f"/v1/jobs/{job['id']}/cancel", headers=first)
        wait_until(lambda: slow_client.pending_rows == 0)
        afterwards = http.post(GENERATIONS, json=SMALL | {"n": 2}, headers=first)
    assert refused.status_code == 429
    assert error(refused) == {
        "message": "n is 2; 10 pictures of this API key are accepted and not done, of at most 11",
        "type": "rate_limit_error",
        "param": None,
        "code": "key_queue_full",
    }
    assert 1 <= int(refused.headers["Retry-After"]) <= 120
    assert [fitting.status_code, other.status_code, afterwards.status_code] == [200, 200, 200]


@pytest.mark.parametrize("bound", ["max_queue", "max_queue_per_key"])
def test_more_pictures_than_are_ever_kept_are_a_wrong_value(
    engine: EngineThread, bound: str
) -> None:
    with engine.serve(limits=Limits(**{bound: 4})) as http:
        answer = http.post(GENERATIONS, json=SMALL | {"n": 5})
        assert generate(http, n=4)["data"]
    assert answer.status_code == 400
    assert error(answer)["param"] == "n"
    assert error(answer)["message"] == "n is 5; this server keeps at most 4 pictures at once"


def test_a_request_of_too_much_work_is_refused_with_its_bound(engine: EngineThread) -> None:
    with engine.serve(limits=Limits(max_megapixel_steps=0.5)) as http:
        body = {"prompt": "a boat", "size": "256x256", "n": 2}
        refused = http.post(GENERATIONS, json=body | {"num_inference_steps": 4})
        assert generate(http, **body | {"num_inference_steps": 3})["data"]
    assert refused.status_code == 400
    assert error(refused)["message"] == (
        "size 256x256, num_frames 1, num_inference_steps 4 and n 2 are 0.524288 megapixel steps; "
        "at most 0.5 are allowed"
    )


def test_usual_requests_are_within_the_default() -> None:
    pictures = 1024 * 1024 * 50 * 10
    video = 1280 * 704 * 121 * 50  # The default of Wan 2.2 TI2V-5B.
    assert max(pictures, video) / 1e6 < Limits().max_megapixel_steps


def test_the_model_s_entry_says_how_much_a_request_may_ask_for(engine: EngineThread) -> None:
    with engine.serve(limits=Limits(max_queue=3, max_megapixel_steps=0.5)) as http:
        [model] = http.get("/v1/models").json()["data"]
    assert model["limits"]["max_images"] == 3
    assert model["limits"]["max_megapixel_steps"] == 0.5


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_queue": 0},
        {"max_queue_per_key": 0},
        {"max_streams": 0},
        {"max_megapixel_steps": 0.0},
        {"max_megapixel_steps": float("nan")},
    ],
    ids=str,
)
def test_a_wrong_bound_is_named(wrong: dict[str, Any]) -> None:
    [(name, value)] = wrong.items()
    with pytest.raises(ConfigurationError, match=f"{name} is {value}; it must be"):
        Limits(**wrong)


def test_a_queue_for_each_key_needs_keys() -> None:
    config = ServeConfig(
        worker=WorkerConfig(model="fake"), port=0, limits=Limits(max_queue_per_key=1)
    )
    with pytest.raises(ConfigurationError, match="--max-queue-per-key needs an API key"):
        serve(config, on_loading=lambda _: None, on_ready=lambda *_: None)


# ---------------------------------------------------------------------- event streams


def test_too_many_streams_are_refused_until_one_ends(engine: EngineThread) -> None:
    with engine.serve(limits=Limits(max_streams=1)) as http:
        job = http.post("/v1/jobs", json=SMALL).json()
        wait_until(lambda: http.get(f"/v1/jobs/{job['id']}").json()["status"] == "succeeded")
        with event_stream(http, "GET", "/v1/lift") as lift:
            next(lift)
            assert metric(http, OPEN) == 1
            refused = [
                http.get("/v1/lift"),
                http.get(f"/v1/jobs/{job['id']}/events"),
                http.post(GENERATIONS, json=SMALL | {"stream": True}),
            ]
            assert generate(http, **SMALL)["data"]
        wait_until(lambda: metric(http, OPEN) == 0)
        with event_stream(http, "GET", f"/v1/jobs/{job['id']}/events") as events:
            assert [event.name for event in events] == ["job.succeeded"]
        wait_until(lambda: metric(http, OPEN) == 0)
    for answer in refused:
        assert answer.status_code == 429
        assert error(answer)["code"] == "too_many_streams"
        assert error(answer)["message"] == "1 event streams are open, of at most 1"
        assert answer.headers["Retry-After"] == "5"


STREAMED = SMALL | {"stream": True}


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (STREAMED, None),
        (STREAMED, "a key"),
        (STREAMED | {"n": 0}, None),
        (STREAMED | {"n": 5}, None),
        (STREAMED | {"model": "another"}, None),
        (STREAMED, "x" * 300),
    ],
    ids=["finished", "job", "schema", "admission", "model", "key"],
)
def test_a_streamed_generation_gives_its_place_back(
    streaming_http: httpx.Client, body: dict[str, Any], key: str | None
) -> None:
    headers = {} if key is None else {"Idempotency-Key": key}
    for _ in range(2):  # The second time a job is finished.
        streaming_http.post(GENERATIONS, json=body, headers=headers)
        wait_until(lambda: metric(streaming_http, OPEN) == 0)


@pytest.fixture(scope="module")
def streaming_http(engine: EngineThread) -> Any:
    with engine.serve(limits=Limits(max_queue=4)) as http:
        yield http


def test_a_reader_who_goes_away_gives_the_place_back(
    slow_http: httpx.Client, slow_client: EngineClient
) -> None:
    with event_stream(
        slow_http, "POST", GENERATIONS, json=LONG | {"stream": True, "preview_every": 1}
    ) as events:
        next(events)
        assert metric(slow_http, OPEN) == 1
    wait_until(lambda: metric(slow_http, OPEN) == 0)
    wait_until(lambda: slow_client.pending_rows == 0)


def test_a_stream_whose_reader_is_gone_before_the_first_event_gives_its_place_back() -> None:
    async def events() -> AsyncIterator[bytes]:
        raise AssertionError("nobody reads it")
        yield b""

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        await asyncio.sleep(3600)

    async def serve(streams: Streams) -> None:
        with ExitStack() as ending:
            ending.enter_context(streams.place())
            answer = EventStream(events(), ending.pop_all().close)
        assert streams.open == 1
        await answer({"type": "http"}, receive, send)

    streams = Streams(1)
    asyncio.run(serve(streams))
    assert streams.open == 0


def test_a_stream_that_is_refused_takes_no_place() -> None:
    streams = Streams(1)
    with streams.place():
        with pytest.raises(TooManyStreams), streams.place():
            pass
        assert streams.open == 1
    assert streams.open == 0


# ---------------------------------------------------------------------- open files


class OpenFiles:
    """A process that may open so many files."""

    def __init__(self, soft: int, hard: int) -> None:
        self.limits = (soft, hard)

    def getrlimit(self, _: int) -> tuple[int, int]:
        return self.limits

    def setrlimit(self, _: int, limits: tuple[int, int]) -> None:
        self.limits = limits


def fit(monkeypatch: pytest.MonkeyPatch, limits: Limits, files: OpenFiles) -> Limits:
    monkeypatch.setattr(resource, "getrlimit", files.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", files.setrlimit)
    return fit_to_open_files(limits)


LIMITS = Limits(max_streams=1000, spare_connections=500)
NEEDED = 1500 + RESERVED_FILES


@pytest.mark.parametrize("hard", [NEEDED, 10**6, resource.RLIM_INFINITY])
def test_as_many_files_may_be_opened_as_connections_need(
    monkeypatch: pytest.MonkeyPatch, hard: int
) -> None:
    files = OpenFiles(1024, hard)
    assert fit(monkeypatch, LIMITS, files) == LIMITS
    assert files.limits == (NEEDED, hard)


@pytest.mark.parametrize("soft", [NEEDED, 10**6, resource.RLIM_INFINITY])
def test_a_process_that_may_open_enough_files_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, soft: int
) -> None:
    files = OpenFiles(soft, soft)
    assert fit(monkeypatch, LIMITS, files) == LIMITS
    assert files.limits == (soft, soft)


def test_there_are_no_more_connections_than_files(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fitted = fit(monkeypatch, LIMITS, OpenFiles(1024, NEEDED - 100))
    assert fitted == replace(LIMITS, spare_connections=400)
    assert "at most 1400 connections can be open" in caplog.text


def test_streams_for_which_no_files_may_be_opened_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigurationError, match=r"--max-streams is 1000; .* at most 704$"):
        fit(monkeypatch, LIMITS, OpenFiles(1024, 1024))
