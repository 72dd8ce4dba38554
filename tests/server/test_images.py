"""``POST /v1/images/generations``: what it gives."""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image

from chairlift import Engine
from chairlift.engine.client import EngineClient
from chairlift.engine.messages import Activity
from chairlift.server.app import create_app
from chairlift.server.jobs.manager import JobManager
from chairlift.server.limits import Limits
from tests.running import (
    GENERATIONS,
    LONG,
    EngineThread,
    generate,
    long_request,
    metric,
    wait_until,
)

CANCELLED = 'chairlift_requests_total{outcome="cancelled"}'


def picture(answer: dict[str, Any], index: int = 0) -> Image.Image:
    return Image.open(BytesIO(b64decode(answer["data"][index]["b64_json"])))


def files(answer: dict[str, Any]) -> list[str]:
    return [image["b64_json"] for image in answer["data"]]


def seeds(answer: dict[str, Any]) -> list[int]:
    return [image["seed"] for image in answer["data"]]


def test_an_answer_is_openais_with_seeds_and_timings(http: httpx.Client) -> None:
    answer = generate(http, seed=7, num_inference_steps=4)
    assert answer.keys() == {"created", "data", "size", "output_format", "timings"}
    assert abs(answer["created"] - time.time()) < 600
    assert answer["size"] == "64x64"
    assert answer["output_format"] == "png"
    [image] = answer["data"]
    assert image.keys() == {"b64_json", "seed"}
    assert image["seed"] == 7


def test_timings_say_where_the_time_went(http: httpx.Client) -> None:
    timings = generate(http, num_inference_steps=4, sampler="heun")["timings"]
    assert timings.pop("steps") == 4
    total = timings.pop("total_s")
    assert timings.keys() == {"queue_s", "encode_s", "denoise_s", "decode_s"}
    assert all(seconds >= 0 for seconds in timings.values())
    assert sum(timings.values()) == pytest.approx(total)


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_picture_has_the_format_and_the_size_that_were_asked_for(
    http: httpx.Client, output_format: str
) -> None:
    answer = generate(http, output_format=output_format, size="72x40")
    assert picture(answer).format == output_format.upper()
    assert picture(answer).size == (72, 40)
    assert (answer["output_format"], answer["size"]) == (output_format, "72x40")


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_less_quality_is_a_smaller_file(http: httpx.Client, output_format: str) -> None:
    sizes = [
        len(
            files(generate(http, seed=1, output_format=output_format, output_compression=quality))[
                0
            ]
        )
        for quality in (0, 50, 100)
    ]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3


def test_png_is_what_the_offline_engine_makes(http: httpx.Client) -> None:
    settings = {"negative_prompt": "dull", "seed": 3, "guidance_scale": 5.0, "sampler": "dpmpp_2m"}
    with Engine("fake") as engine:
        [expected] = engine.generate("a boat", steps=7, width=96, height=64, **settings)
    answer = generate(http, num_inference_steps=7, size="96x64", **settings)
    assert b64decode(files(answer)[0]) == expected.data


def test_image_i_has_the_seed_plus_i(http: httpx.Client) -> None:
    together = generate(http, n=3, seed=41)
    assert seeds(together) == [41, 42, 43]
    assert files(together) == [files(generate(http, seed=41 + image))[0] for image in range(3)]
    assert len({picture(together, image).tobytes() for image in range(3)}) == 3


@pytest.mark.parametrize("field", [{}, {"seed": None}, {"seed": -1}])
def test_a_random_seed_is_named_and_gives_the_same_again(
    http: httpx.Client, field: dict[str, Any]
) -> None:
    one, other = generate(http, n=2, **field), generate(http, n=2, **field)
    assert seeds(one)[1] == seeds(one)[0] + 1
    assert seeds(one) != seeds(other)
    assert files(generate(http, n=2, seed=seeds(one)[0])) == files(one)


@pytest.mark.parametrize(
    "field",
    [
        {"prompt": "a cabin"},
        {"negative_prompt": "a cabin"},
        {"num_inference_steps": 9},
        {"guidance_scale": 3.5},
        {"guidance_scale": 1},
        {"sampler": "heun"},
        {"seed": 2},
    ],
    ids=str,
)
def test_every_setting_matters(http: httpx.Client, field: dict[str, Any]) -> None:
    # Of the pictures, not of the files, which carry the settings.
    with_it = picture(generate(http, **({"seed": 1} | field)))
    assert with_it.tobytes() != picture(generate(http, seed=1)).tobytes()


def test_null_and_auto_are_the_defaults(http: httpx.Client) -> None:
    names = ["model", "n", "response_format", "output_format", "output_compression", "stream"]
    names += ["partial_images", "user", "negative_prompt", "num_inference_steps", "guidance_scale"]
    names += ["sampler", "quality", "style", "background", "moderation", "priority", "deadline_ms"]
    answer = generate(http, seed=1, size="auto", **dict.fromkeys(names))
    assert files(answer) == files(generate(http, seed=1))
    assert "warnings" not in answer


def test_openais_defaults_may_be_said(http: httpx.Client) -> None:
    said = {"model": "fake", "response_format": "b64_json", "stream": False, "partial_images": 0}
    answer = generate(http, seed=1, user="somebody", **said)
    assert files(answer) == files(generate(http, seed=1))
    assert "warnings" not in answer


MEANINGLESS = {
    "quality": "high",
    "style": "vivid",
    "background": "transparent",
    "moderation": "low",
    "input_fidelity": "high",
}


@pytest.mark.parametrize("name", MEANINGLESS)
def test_a_field_that_means_nothing_here_is_named(http: httpx.Client, name: str) -> None:
    answer = generate(http, seed=1, **{name: MEANINGLESS[name]})
    assert answer["warnings"] == [f"{name} has no effect here"]
    assert files(answer) == files(generate(http, seed=1))


def test_all_fields_that_mean_nothing_here_are_named(http: httpx.Client) -> None:
    warnings = generate(http, **MEANINGLESS)["warnings"]
    assert warnings == [f"{name} has no effect here" for name in MEANINGLESS]


def test_callers_at_the_same_time_get_their_own_pictures(http: httpx.Client) -> None:
    samplers = ["euler", "ddim", "heun", "dpmpp_2m"]
    bodies: list[dict[str, Any]] = [
        {"seed": seed, "n": 1 + seed % 3, "sampler": samplers[seed % 4], "size": size}
        for seed in range(8)
        for size in ("64x64", "128x64")
    ]
    with ThreadPoolExecutor(len(bodies)) as pool:
        together = list(pool.map(lambda body: files(generate(http, **body)), bodies))
    assert together == [files(generate(http, **body)) for body in bodies]


def test_a_full_queue_refuses_and_says_when_to_come_again(
    slow_engine: EngineThread, slow_client: EngineClient
) -> None:
    with slow_engine.serve(max_queue=11) as http:
        with long_request(http, slow_client):
            refused = http.post(GENERATIONS, json={"prompt": "a boat", "n": 2})
            refusals = metric(http, 'chairlift_rejected_total{reason="queue_full"}')
            assert generate(http, n=1)["data"]  # for one there is room
        accepted = generate(http, n=2)
    assert refused.status_code == 429
    assert refused.json()["error"] == {
        "message": "n is 2; 10 pictures are accepted and not done, of at most 11",
        "type": "rate_limit_error",
        "param": None,
        "code": "queue_full",
    }
    assert 1 <= int(refused.headers["Retry-After"]) <= 120
    assert refusals == 1
    assert len(accepted["data"]) == 2


def test_callers_who_come_at_once_do_not_overfill_the_queue(engine: EngineThread) -> None:
    async def rush(jobs: JobManager) -> list[int]:
        body = {"prompt": "a boat", "size": "256x256", "num_inference_steps": 50}
        transport = httpx.ASGITransport(create_app(engine.client, jobs, limits=Limits(max_queue=5)))
        async with httpx.AsyncClient(transport=transport, base_url="http://lift") as http:
            posts = [http.post(GENERATIONS, json=body) for _ in range(20)]
            return [answer.status_code for answer in await asyncio.gather(*posts)]

    with engine.jobs() as jobs:
        statuses = engine.wait_for(rush(jobs))
    assert Counter(statuses) == {200: 5, 429: 15}


def test_a_caller_who_goes_away_leaves_the_lift(
    slow_http: httpx.Client, slow_client: EngineClient
) -> None:
    cancelled = metric(slow_http, CANCELLED)
    with long_request(slow_http, slow_client):
        assert slow_client.pending_rows == LONG["n"]
    assert slow_client.pending_rows == 0
    assert metric(slow_http, CANCELLED) == cancelled + 1
    reports: list[Activity] = []
    stop = slow_client.listen(reports.append)
    generate(slow_http, size=LONG["size"], num_inference_steps=3)
    wait_until(lambda: reports and reports[-1].running == 0)
    stop()
    # It would have shared every tick with those that have left.
    riders = [len(tick.riders) for report in reports for tick in report.ticks]
    assert riders[-3:] == [1, 1, 1]


def test_the_front_end_answers_while_the_engine_works(
    slow_http: httpx.Client, slow_client: EngineClient
) -> None:
    with long_request(slow_http, slow_client):
        for path in ("/health", "/ready", "/metrics", "/v1/models"):
            assert slow_http.get(path).status_code == 200
        assert slow_http.post(GENERATIONS, json={"prompt": "a boat", "n": 0}).status_code == 400
        assert slow_client.pending_rows == LONG["n"]
