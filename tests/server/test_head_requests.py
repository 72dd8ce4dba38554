"""HEAD, wherever GET is answered."""

from __future__ import annotations

import httpx
import pytest

from tests.running import GENERATIONS, EngineThread, metric

DESCRIBING = ("content-length", "content-type", "etag", "accept-ranges", "cache-control")
"""Headers that say what GET would send."""


def describing(answer: httpx.Response) -> dict[str, str]:
    return {name: answer.headers[name] for name in DESCRIBING if name in answer.headers}


@pytest.mark.parametrize(
    "path", ["/", "/health", "/ready", "/version", "/v1/models", "/v1/jobs", "/openapi.json"]
)
def test_a_head_is_that_of_the_whole_answer(http: httpx.Client, path: str) -> None:
    whole, head = http.get(path), http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert describing(head) == describing(whole)
    assert int(head.headers["Content-Length"]) == len(whole.content) > 0


def test_a_pictures_size_can_be_asked_for(http: httpx.Client) -> None:
    job = http.post("/v1/jobs", json={"prompt": "a boat"}).json()
    job = http.get(f"/v1/jobs/{job['id']}", params={"wait_s": 60}).json()
    url = job["images"][0]["url"]
    whole, head = http.get(url), http.head(url, headers={"Range": "bytes=0-1"})
    assert (head.status_code, head.content) == (200, b"")
    assert describing(head) == describing(whole)
    assert describing(head).keys() == set(DESCRIBING)


def test_a_stream_ends_with_its_head(engine: EngineThread) -> None:
    with engine.serve() as http:
        answer = http.head("/v1/lift")
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert metric(http, "chairlift_streams_open") == 0


def test_what_is_refused_is_refused_by_its_head(http: httpx.Client) -> None:
    assert http.head("/v1/jobs/job_0").status_code == 404
    assert http.head(GENERATIONS).status_code == 405
    assert http.get("/health").status_code == 200  # The connection has nothing left in it.


def test_a_head_needs_the_key_as_well(engine: EngineThread) -> None:
    with engine.serve(api_key="a-key") as http:
        assert http.head("/v1/models").status_code == 401
        assert http.head("/health").status_code == 200
