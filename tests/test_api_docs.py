"""What the API guide shows is what happens, and it shows everything."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

import chairlift.server.security  # noqa: F401  # its errors are errors of requests too
from chairlift.errors import RequestError
from chairlift.server.jobs.view import JobAnswer
from chairlift.server.process import running_server
from chairlift.server.schema import ImageGenerationBody, LiftReport, Queued
from tests.running import GENERATIONS, PATIENCE_SECONDS
from tests.server.sse import event_stream
from tests.tiny.wan import save_tiny_wan

GUIDE = (Path(__file__).parent.parent / "docs/api.md").read_text(encoding="utf-8")
EXAMPLE_URL = "http://127.0.0.1:8000"


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of a server whose steps take long enough to cancel a request."""
    with running_server("fake:0.01") as url:
        yield url


@pytest.fixture(scope="module")
def video_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server of a small model that makes small videos, if nothing else is asked for."""
    folder = save_tiny_wan(tmp_path_factory.mktemp("videos") / "wan")
    small = {"width": 32, "height": 32, "frames": 5, "steps": 2}
    (folder / "chairlift.json").write_text(json.dumps(small))
    with running_server(str(folder), "--device", "cpu") as url:
        yield url


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as http:
        yield http


# ---------------------------------------------------------------------- examples


def run(block: str, url: str) -> None:
    exec(compile(block.replace(EXAMPLE_URL, url), "docs/api.md", "exec"), {})


@pytest.mark.parametrize("block", [block for block in code_blocks("python") if ".mp4" not in block])
def test_python_code_runs(
    block: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(block, url)


def test_python_code_makes_a_video(
    video_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [block] = [block for block in code_blocks("python") if ".mp4" in block]
    run(block, video_url)
    with av.open(tmp_path / "boat-7.mp4") as video:
        assert video.streams.video[0].frames == 33


@pytest.mark.parametrize("block", code_blocks("bash"))
def test_commands_run(block: str, url: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-e", "-u", "-o", "pipefail", "-c", block.replace(EXAMPLE_URL, url)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    is_error = done.stdout.startswith('{"error":') or "\nevent: error" in done.stdout
    assert is_error == ('"n": 11' in block), done.stdout[:500]


def test_there_are_examples_for_both() -> None:
    assert len(code_blocks("python")) >= 5
    assert len(code_blocks("bash")) >= 5
    assert "api_key" in GUIDE
    assert GUIDE.count(EXAMPLE_URL) > 10


# ---------------------------------------------------------------------- answers


def shown(key: str) -> Any:
    """The answer in the guide that has this key."""
    [block] = [block for block in map(json.loads, code_blocks("json")) if key in block]
    return block


def shape(value: Any) -> Any:
    """What there is, without the values."""
    if isinstance(value, dict):
        return {name: shape(field) for name, field in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return None


def test_the_answer_is_shown_as_it_is(http: httpx.Client) -> None:
    answer = http.post(GENERATIONS, json={"prompt": "a boat", "n": 2}).json()
    assert shape(shown("data")) == shape(answer)


def test_a_job_is_shown_as_it_is(http: httpx.Client) -> None:
    job = http.post("/v1/jobs", json={"prompt": "a boat"}).json()
    with event_stream(http, "GET", f"/v1/jobs/{job['id']}/events") as events:
        *_, last = events
    assert shape(shown("position")) == shape(last.data["job"])
    assert shown("position").keys() == set(JobAnswer.__struct_fields__)


def test_the_lift_is_shown_as_it_is(http: httpx.Client) -> None:
    job = http.post("/v1/jobs", json={"prompt": "a boat", "num_inference_steps": 150}).json()
    with event_stream(http, "GET", "/v1/lift") as events:
        report = next(event.data for event in events if event.data["ticks"])
    http.post(f"/v1/jobs/{job['id']}/cancel")
    example = shown("ticks")
    assert example.keys() == report.keys() == set(LiftReport.__struct_fields__)
    assert shape(example["ticks"]) == shape(report["ticks"])
    assert example["queue"][0].keys() == set(Queued.__struct_fields__)


def test_the_error_is_the_one_that_comes(http: httpx.Client) -> None:
    examples = [block for block in map(json.loads, code_blocks("json")) if len(block) == 1]
    assert examples == [http.post(GENERATIONS, json={"prompt": "a boat", "n": 11}).json()]


# ---------------------------------------------------------------------- nothing is missing


def codes(error: type[RequestError]) -> Iterator[str]:
    yield error.code
    for kind in error.__subclasses__():
        yield from codes(kind)


def test_every_error_code_is_there() -> None:
    assert {code for code in codes(RequestError) if f"`{code}`" not in GUIDE} == set()


def test_every_field_is_there() -> None:
    assert {name for name in ImageGenerationBody.model_fields if f"`{name}`" not in GUIDE} == set()


def test_every_route_is_there(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    routes = {
        f"{method.upper()} {re.sub('{.*?_id}', '{id}', path).replace('{index}', '{i}')}"
        for path, item in paths.items()
        for method in item
    }
    assert {route for route in routes if f"`{route}`" not in GUIDE} == set()
