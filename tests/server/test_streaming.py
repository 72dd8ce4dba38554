"""``stream: true``: half-made pictures, then the whole ones."""

from __future__ import annotations

import asyncio
import socket
from base64 import b64decode
from contextlib import ExitStack
from io import BytesIO
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from fastapi import Request
from openai.types.image_gen_completed_event import ImageGenCompletedEvent
from openai.types.image_gen_partial_image_event import ImageGenPartialImageEvent
from PIL import Image
from starlette.types import Message

from chairlift.engine.client import EngineClient
from chairlift.engine.ride import Ride
from chairlift.errors import RequestCancelled
from chairlift.server import serve as serve_module
from chairlift.server.streaming import stream_images
from tests.builders import a_request
from tests.running import (
    GENERATIONS,
    LONG,
    EngineThread,
    generate,
    long_request,
    metric,
    send_post,
    wait_until,
)
from tests.server.sse import Event, event_stream

PARTIAL, COMPLETED = "image_generation.partial_image", "image_generation.completed"


def stream(http: httpx.Client, **fields: Any) -> list[Event]:
    body = {"prompt": "a boat", "seed": 1, "stream": True} | fields
    with event_stream(http, "POST", GENERATIONS, json=body) as events:
        return list(events)


def steps(events: list[Event], image: int = 0) -> list[int]:
    return [
        event.data["step"]
        for event in events
        if event.name == PARTIAL and event.data["image_index"] == image
    ]


def pixels(event: Event) -> np.ndarray[Any, np.dtype[np.int16]]:
    image = Image.open(BytesIO(b64decode(event.data["b64_json"])))
    return np.asarray(image.convert("RGB")).astype(np.int16)


def test_a_stream_ends_with_the_picture_of_the_plain_answer(http: httpx.Client) -> None:
    [completed] = stream(http)
    assert completed.name == completed.data["type"] == COMPLETED
    assert completed.data["b64_json"] == generate(http, seed=1)["data"][0]["b64_json"]
    assert (completed.data["seed"], completed.data["image_index"]) == (1, 0)
    assert completed.data["timings"]["steps"] > 0


def test_each_picture_has_its_own_last_event(http: httpx.Client) -> None:
    events = stream(http, n=3)
    assert [event.name for event in events] == [COMPLETED] * 3
    assert [event.data["seed"] for event in events] == [1, 2, 3]
    assert [event.data["b64_json"] for event in events] == [
        image["b64_json"] for image in generate(http, seed=1, n=3)["data"]
    ]


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"partial_images": 1}, [5]),
        ({"partial_images": 2}, [3, 6]),
        ({"partial_images": 3}, [2, 5, 7]),
        ({"preview_every": 4}, [4, 8]),
        ({"preview_every": 5, "sampler": "heun"}, [5]),
        ({"partial_images": 3, "num_inference_steps": 2}, [1]),
        ({"partial_images": 3, "num_inference_steps": 1}, []),
        ({"partial_images": 0}, []),
    ],
    ids=str,
)
def test_half_made_pictures_come_after_the_steps_that_were_asked_for(
    http: httpx.Client, fields: dict[str, Any], shown: list[int]
) -> None:
    events = stream(http, **({"num_inference_steps": 10} | fields))
    assert steps(events) == shown
    partials = [event.data for event in events[:-1]]
    assert [partial["partial_image_index"] for partial in partials] == list(range(len(shown)))
    assert all(partial["steps"] == events[-1].data["timings"]["steps"] for partial in partials)


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_half_made_picture_is_a_file_like_the_whole_one(
    http: httpx.Client, output_format: str
) -> None:
    partial, completed = stream(
        http, partial_images=1, num_inference_steps=100, output_format=output_format, size="96x64"
    )
    for event in (partial, completed):
        image = Image.open(BytesIO(b64decode(event.data["b64_json"])))
        assert (image.format, image.size) == (output_format.upper(), (96, 64))
        assert (event.data["output_format"], event.data["size"]) == (output_format, "96x64")


def test_half_made_pictures_come_nearer_to_the_whole_one(http: httpx.Client) -> None:
    *partials, completed = stream(http, partial_images=3, num_inference_steps=20)
    whole = pixels(completed)
    errors = [float(np.abs(pixels(partial) - whole).mean()) for partial in partials]
    assert all(later < earlier for earlier, later in pairwise(errors))


def test_each_picture_of_several_is_shown(http: httpx.Client) -> None:
    events = stream(http, n=2, partial_images=2, num_inference_steps=9)
    assert steps(events, 0) == steps(events, 1) == [3, 6]


def test_openais_client_streams(http: httpx.Client) -> None:
    stock = openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="any", max_retries=0)
    with stock:
        answer = stock.images.generate(
            prompt="a boat",
            stream=True,
            partial_images=2,
            extra_body={"seed": 1, "num_inference_steps": 9},
        )
        seen = list(answer)
    assert [event.type for event in seen] == [PARTIAL, PARTIAL, COMPLETED]
    assert [event.partial_image_index for event in seen[:2]] == [0, 1]
    expected = generate(http, seed=1, num_inference_steps=9)["data"][0]["b64_json"]
    assert seen[-1].b64_json == expected
    assert seen[-1].usage.total_tokens == 0


@pytest.mark.parametrize("n", [1, 2])
def test_events_have_all_that_openais_types_name(http: httpx.Client, n: int) -> None:
    kinds = {PARTIAL: ImageGenPartialImageEvent, COMPLETED: ImageGenCompletedEvent}
    events = stream(http, partial_images=1, n=n, quality="high", background="opaque")
    assert {event.name for event in events} == set(kinds)
    for event in events:
        kinds[event.name].model_validate(event.data, strict=True)


def test_a_stream_says_its_id_at_once(slow_http: httpx.Client, slow_client: EngineClient) -> None:
    body = LONG | {"stream": True}
    with slow_http.stream("POST", GENERATIONS, json=body) as answer:
        assert [answer.headers["X-Chairlift-Id"]] == list(slow_client.rides)
    wait_until(lambda: slow_client.pending_rows == 0)


def test_a_reader_who_goes_away_before_it_is_accepted_ends_its_request() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def watch() -> bool:
        loop = asyncio.get_running_loop()
        ride = Ride(a_request(), loop.create_future(), loop.time())
        with pytest.raises(RequestCancelled), ExitStack() as ending:
            await stream_images(Request({"type": "http"}, receive), ride, [], ending)
        return ride.answer.cancelled()

    assert asyncio.run(watch())


def test_a_refusal_is_an_answer_not_an_event(http: httpx.Client) -> None:
    refused = http.post(GENERATIONS, json={"prompt": "a boat", "stream": True, "n": 11})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "n"


def test_a_reader_who_goes_away_frees_the_slots(
    slow_http: httpx.Client, slow_engine: EngineThread
) -> None:
    http, client = slow_http, slow_engine.client
    with event_stream(
        http, "POST", GENERATIONS, json=LONG | {"stream": True, "preview_every": 1}
    ) as events:
        assert next(events).name == PARTIAL
        assert client.pending_rows == LONG["n"]
    wait_until(lambda: client.pending_rows == 0 and client.activity.running == 0)


def test_a_request_that_is_cancelled_ends_its_stream_with_an_error(
    slow_http: httpx.Client, slow_engine: EngineThread
) -> None:
    http, client = slow_http, slow_engine.client
    with event_stream(
        http, "POST", GENERATIONS, json=LONG | {"stream": True, "preview_every": 1}
    ) as events:
        next(events)
        [id] = client.rides
        assert http.post(f"/v1/requests/{id}/cancel").json() == {"id": id, "cancelled": True}
        last = list(events)[-1]
    assert last.name == "error"
    assert last.data["error"]["code"] == "cancelled"
    assert http.post(f"/v1/requests/{id}/cancel").status_code == 404


def test_a_plain_request_can_be_cancelled_by_its_id(
    slow_http: httpx.Client, slow_engine: EngineThread
) -> None:
    http, client = slow_http, slow_engine.client
    with long_request(http, client):
        [id] = client.rides
        assert http.post(f"/v1/requests/{id}/cancel").status_code == 200
        wait_until(lambda: client.activity.running == 0)


def test_the_stream_of_a_reader_who_never_reads_holds_up_nobody(
    engine: EngineThread, client: EngineClient
) -> None:
    body = {"prompt": "a boat", "stream": True, "preview_every": 1, "n": 4, "size": "512x512"}
    with (
        engine.serve() as http,
        event_stream(http, "POST", GENERATIONS, json=body | {"num_inference_steps": 100}),
    ):
        wait_until(lambda: client.pending_rows == 0)
        assert generate(http)["data"]


def test_a_reader_who_reads_nothing_for_too_long_is_disconnected(
    slow_engine: EngineThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_module, "UNREAD_SECONDS", 1)
    with slow_engine.serve() as http, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect((http.base_url.host, http.base_url.port))
        send_post(reader, GENERATIONS, LONG | {"stream": True, "preview_every": 1, "n": 4})
        wait_until(lambda: slow_engine.client.pending_rows == 4)
        wait_until(lambda: slow_engine.client.pending_rows == 0)
        assert metric(http, 'chairlift_requests_total{outcome="cancelled"}') == 1
