"""Videos: a small Wan checkpoint is served, and its jobs make files that players can play."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest

from chairlift.engine.worker_config import WorkerConfig
from tests.running import GENERATIONS, EngineThread
from tests.tiny.wan import save_tiny_wan

JOBS = "/v1/jobs"
TXT2IMG = "/sdapi/v1/txt2img"
SMALL: dict[str, Any] = {
    "prompt": "a boat",
    "size": "96x32",
    "num_frames": 5,
    "num_inference_steps": 2,
    "seed": 1,
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineThread]:
    """Of a model with two experts."""
    folder = save_tiny_wan(tmp_path_factory.mktemp("videos") / "wan", experts=2)
    with EngineThread(WorkerConfig(model=str(folder), device="cpu")) as engine:
        yield engine


@pytest.fixture(scope="module")
def http(engine: EngineThread) -> Iterator[httpx.Client]:
    with engine.serve(compat="a1111") as http:
        yield http


@pytest.fixture(scope="module")
def done(http: httpx.Client) -> dict[str, Any]:
    """A job with two videos."""
    return make(http, n=2)


def make(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    """The job, once it has ended."""
    answer = http.post(JOBS, json=SMALL | fields)
    assert answer.status_code == 202, answer.text
    ended = http.get(answer.headers["Location"], params={"wait_s": 60})
    job: dict[str, Any] = ended.json()
    assert job["status"] == "succeeded", job
    return job


def file(http: httpx.Client, job: dict[str, Any], index: int = 0) -> bytes:
    return http.get(job["images"][index]["url"]).raise_for_status().content


def frames(video: bytes) -> list[np.ndarray[Any, Any]]:
    """Of a file: ``(height, width, 3)`` each."""
    with av.open(BytesIO(video)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def refused(answer: httpx.Response) -> tuple[int, str | None, str]:
    error = answer.json()["error"]
    return answer.status_code, error["param"], error["message"]


# ---------------------------------------------------------------------- jobs


def test_a_job_makes_videos_of_the_frames_and_size_that_were_asked_for(
    http: httpx.Client, done: dict[str, Any]
) -> None:
    assert done["progress"] == {"steps": [2, 2], "of": 2}
    assert [image["output_format"] for image in done["images"]] == ["mp4", "mp4"]
    videos = [file(http, done, index) for index in range(2)]
    for video in videos:
        assert [frame.shape for frame in frames(video)] == [(32, 96, 3)] * 5
    assert videos[0] != videos[1]


def test_the_models_own_number_of_frames_is_the_default(http: httpx.Client) -> None:
    [model] = http.get("/v1/models").json()["data"]
    assert (model["defaults"]["frames"], model["output_formats"]) == (81, ["mp4"])
    answer = http.post(JOBS, json={"prompt": "a boat", "size": "16x16"})
    assert answer.json()["request"]["num_frames"] == 81
    http.post(f"{JOBS}/{answer.json()['id']}/cancel")


def test_the_request_of_a_job_can_be_sent_again(http: httpx.Client) -> None:
    first = make(http, guidance_scale_2=2.5, output_format="mp4")
    echoed = first["request"]
    assert (echoed["num_frames"], echoed["guidance_scale_2"]) == (5, 2.5)
    assert echoed["output_format"] == "mp4"
    again = make(http, **echoed)
    assert again["request"] == echoed
    assert file(http, again) == file(http, first)
    assert file(http, make(http)) != file(http, first)  # The second expert's weight has a meaning.


def test_a_restarted_server_still_has_the_video(engine: EngineThread, tmp_path: Path) -> None:
    with engine.serve(folder=tmp_path) as http:
        job = make(http)
        video = file(http, job)
    with engine.serve(folder=tmp_path) as http:
        assert http.get(f"{JOBS}/{job['id']}").json() == job
        assert file(http, job) == video


# ---------------------------------------------------------------------- files


def test_a_file_says_what_it_is(http: httpx.Client, done: dict[str, Any]) -> None:
    answer = http.get(done["images"][1]["url"])
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["Content-Disposition"] == f'inline; filename="{done["id"]}-1.mp4"'
    assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert answer.headers["Accept-Ranges"] == "bytes"


def test_players_can_seek(http: httpx.Client, done: dict[str, Any]) -> None:
    url, whole = done["images"][0]["url"], file(http, done)
    part = http.get(url, headers={"Range": "bytes=100-"})
    assert part.status_code == 206
    assert part.headers["Content-Range"] == f"bytes 100-{len(whole) - 1}/{len(whole)}"
    assert part.headers["Content-Type"] == "video/mp4"
    assert part.content == whole[100:]


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"num_frames": 0}, "num_frames", "num_frames is 0; it must be from 1 to 161"),
        ({"num_frames": 165}, "num_frames", "num_frames is 165; it must be from 1 to 161"),
        (
            {"num_frames": 6},
            "num_frames",
            "num_frames is 6; it must be 1 more than a multiple of 4, the nearest is 5",
        ),
        (
            {"output_format": "png"},
            "output_format",
            "output_format is 'png'; it must be one of mp4",
        ),
        ({"guidance_scale_2": 0.5}, "guidance_scale_2", "it must be from 1.0 to 100.0"),
        ({"preview_every": 1}, "model", "makes videos, which have no previews"),
        ({"size": "960x960", "num_inference_steps": 200, "num_frames": 161}, None, "at most 6000"),
    ],
)
def test_a_wrong_value_is_refused_with_its_bound(
    http: httpx.Client, fields: dict[str, Any], param: str | None, message: str
) -> None:
    status, name, text = refused(http.post(JOBS, json=SMALL | fields))
    assert (status, name) == (400, param)
    assert message in text


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"stream": True, "partial_images": 1}])
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}])
def test_who_waits_for_pictures_is_told_where_videos_are_made(
    http: httpx.Client, fields: dict[str, Any], headers: dict[str, str]
) -> None:
    answer = http.post(GENERATIONS, json=SMALL | fields, headers=headers)
    sentence = "model is 'wan', which makes videos; they are made by POST /v1/jobs"
    assert refused(answer) == (400, "model", sentence)


def test_automatic1111s_clients_are_told_too(http: httpx.Client) -> None:
    answer = http.post(TXT2IMG, json={"prompt": "a boat", "steps": 2})
    sentence = "model is 'wan', which makes videos; they are made by POST /v1/jobs"
    assert refused(answer) == (422, "model", sentence)
    assert answer.json()["detail"] == sentence
