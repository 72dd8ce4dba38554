"""``/v1/jobs`` over HTTP."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from chairlift.errors import Unavailable
from chairlift.server.jobs.job import JobStatus
from tests.builders import a_request
from tests.running import (
    GENERATIONS,
    LONG,
    PATIENCE_SECONDS,
    EngineThread,
    generate,
    metric,
    wait_until,
)
from tests.server.sse import Event, event_stream

JOBS = "/v1/jobs"
UNKNOWN = "job_" + 32 * "0"


def submit(http: httpx.Client, key: str | None = None, **fields: Any) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return http.post(JOBS, json={"prompt": "a boat", "seed": 1} | fields, headers=headers)


def accepted(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = submit(http, **fields)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def look(http: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    answer = http.get(f"{JOBS}/{job['id']}")
    assert answer.status_code == 200, answer.text
    now: dict[str, Any] = answer.json()
    return now


def finished(http: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    """The job, once it has ended."""
    with event_stream(http, "GET", f"{JOBS}/{job['id']}/events") as events:
        *_, last = events
    return look(http, last.data["job"])


def cancel(http: httpx.Client, job: dict[str, Any]) -> httpx.Response:
    return http.post(f"{JOBS}/{job['id']}/cancel")


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_job_is_acknowledged_at_once_with_its_prediction(http: httpx.Client) -> None:
    answer = submit(http, num_inference_steps=7, n=2, user="somebody")
    job = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert job["object"] == "job"
    assert job["status"] in ("queued", "running")
    assert job["progress"]["of"] == 7
    assert len(job["progress"]["steps"]) == 2
    assert job["eta_s"] >= 0
    assert job["images"] == []
    assert job["request"]["prompt"] == "a boat"
    assert (job["request"]["size"], job["request"]["n"]) == ("64x64", 2)
    assert job["request"]["user"] == "somebody"
    finished(http, job)


def test_its_pictures_are_those_of_the_plain_answer(http: httpx.Client) -> None:
    job = finished(http, accepted(http, n=2))
    assert job["status"] == "succeeded"
    assert job["progress"] == {"steps": [10, 10], "of": 10}
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]
    assert (job["eta_s"], job["position"], job["error"]) == (None, None, None)
    assert job["timings"]["steps"] == 10
    expected = generate(http, seed=1, n=2)["data"]
    for image, other in zip(job["images"], expected, strict=True):
        answer = http.get(image["url"])
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.content == b64decode(other["b64_json"])
        assert image["seed"] == other["seed"]


def test_warnings_stay_with_the_job(http: httpx.Client) -> None:
    job = finished(http, accepted(http, quality="high"))
    assert job["warnings"] == ["quality has no effect here"]


def test_events_tell_how_it_goes_on_and_end_with_it(slow_http: httpx.Client) -> None:
    http = slow_http
    job = accepted(http, size="256x256", num_inference_steps=60, preview_every=20)
    with event_stream(http, "GET", f"{JOBS}/{job['id']}/events") as stream:
        events = list(stream)
    assert events[0].name == "job.updated"
    assert events[-1].name == "job.succeeded"
    assert all(event.data["type"] == event.name for event in events)
    assert [event.data["step"] for event in events if event.name == "job.partial_image"] == [20, 40]
    assert _progress(events) == sorted(_progress(events))
    assert events[-1].data["job"] == look(http, job)


def test_who_comes_later_sees_the_last_preview_at_once(slow_http: httpx.Client) -> None:
    job = accepted(slow_http, num_inference_steps=100, preview_every=5)
    wait_until(lambda: look(slow_http, job)["progress"]["steps"][0] > 20)
    with event_stream(slow_http, "GET", f"{JOBS}/{job['id']}/events") as events:
        now, preview = next(events), next(events)
    assert (now.name, preview.name) == ("job.updated", "job.partial_image")
    assert preview.data["step"] >= 20
    cancel(slow_http, job)


def _progress(events: list[Event]) -> list[int]:
    return [event.data["job"]["progress"]["steps"][0] for event in events if "job" in event.data]


def test_events_of_a_job_that_has_ended_are_its_end(http: httpx.Client) -> None:
    job = finished(http, accepted(http))
    with event_stream(http, "GET", f"{JOBS}/{job['id']}/events") as events:
        [end] = events
    assert (end.name, end.data["job"]) == ("job.succeeded", job)


def test_a_job_goes_on_when_its_reader_goes_away(http: httpx.Client) -> None:
    job = accepted(http, size="256x256", num_inference_steps=50)
    with event_stream(http, "GET", f"{JOBS}/{job['id']}/events") as events:
        next(events)
    assert finished(http, job)["status"] == "succeeded"


@pytest.mark.parametrize("riding", [True, False])
def test_a_cancelled_job_is_off_the_lift(
    slow_http: httpx.Client, slow_engine: EngineThread, riding: bool
) -> None:
    http, client = slow_http, slow_engine.client
    job = accepted(http, **LONG)
    if riding:
        wait_until(lambda: look(http, job)["status"] == "running")
    answer = cancel(http, job)
    assert answer.status_code == 200
    assert answer.json()["status"] == look(http, job)["status"] == "cancelled"
    assert answer.json()["finished_at"] is not None
    wait_until(lambda: client.activity.running == client.activity.waiting == 0)
    assert http.get(f"{JOBS}/{job['id']}", params={"wait_s": 60}).json() == answer.json()
    assert code(cancel(http, job)) == (409, "job_finished")
    assert code(http.get(f"{JOBS}/{job['id']}/images/0")) == (409, "job_not_finished")


def test_its_request_can_be_sent_again(http: httpx.Client) -> None:
    job = finished(http, accepted(http, seed=None, deadline_ms=60_000.5, user="somebody"))
    again = finished(http, accepted(http, **job["request"]))
    assert again["request"] == job["request"]
    assert job["request"]["deadline_ms"] == 60_000.5
    first, second = (http.get(one["images"][0]["url"]).content for one in (job, again))
    assert first == second


def test_who_waits_for_a_job_is_answered_at_its_end(slow_http: httpx.Client) -> None:
    job = accepted(slow_http, num_inference_steps=30)
    waited = slow_http.get(f"{JOBS}/{job['id']}", params={"wait_s": 60})
    assert waited.json()["status"] == "succeeded"


def test_who_waits_for_a_job_is_answered_in_time(slow_http: httpx.Client) -> None:
    job = accepted(slow_http, **LONG)
    waited = slow_http.get(f"{JOBS}/{job['id']}", params={"wait_s": 0.05})
    assert waited.json()["status"] in ("queued", "running")
    cancel(slow_http, job)
    refused = slow_http.get(f"{JOBS}/{job['id']}", params={"wait_s": 61})
    assert refused.json()["error"]["param"] == "wait_s"


def test_jobs_that_wait_know_their_place(slow_http: httpx.Client) -> None:
    http = slow_http
    with busy(http):
        first, second = accepted(http, num_inference_steps=200), accepted(http)
        positions = [look(http, job)["position"] for job in (first, second)]
        statuses = [look(http, job)["status"] for job in (first, second)]
        assert all(
            position is None if status == "running" else position >= 0
            for position, status in zip(positions, statuses, strict=True)
        )
    for job in (first, second):
        assert finished(http, job)["status"] == "succeeded"


@contextmanager
def busy(http: httpx.Client) -> Iterator[None]:
    """While a long job rides."""
    job = accepted(http, **LONG)
    wait_until(lambda: look(http, job)["status"] == "running")
    yield
    cancel(http, job)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("DELETE", ""), ("GET", "/events"), ("POST", "/cancel"), ("GET", "/images/0")],
)
@pytest.mark.parametrize("id", [UNKNOWN, "..", "x" * 200, "job_é"])
def test_an_unknown_job_is_not_found(http: httpx.Client, method: str, path: str, id: str) -> None:
    answer = http.request(method, f"{JOBS}/{id}{path}")
    assert answer.status_code == 404


def test_a_removed_job_is_not_found_and_its_key_is_free(
    engine: EngineThread, tmp_path: Path
) -> None:
    with engine.serve(folder=tmp_path) as http:
        job = finished(http, submit(http, "again").json())
        removed = http.delete(f"{JOBS}/{job['id']}")
        assert removed.json() == {"id": job["id"], "object": "job", "deleted": True}
        assert code(http.get(job["images"][0]["url"])) == (404, "job_not_found")
        assert code(http.delete(f"{JOBS}/{job['id']}")) == (404, "job_not_found")
        assert http.get(JOBS).json()["data"] == []
        assert list((tmp_path / "pictures").iterdir()) == []
        assert submit(http, "again", seed=2).status_code == 202


def test_a_job_that_has_not_ended_is_not_removed(slow_http: httpx.Client) -> None:
    job = accepted(slow_http, **LONG)
    refused = slow_http.delete(f"{JOBS}/{job['id']}")
    assert code(refused) == (409, "job_not_finished")
    assert refused.json()["error"]["message"].endswith("; cancel it first")
    assert cancel(slow_http, job).status_code == 200
    assert slow_http.delete(f"{JOBS}/{job['id']}").status_code == 200


def test_a_picture_that_is_not_there_is_not_found(http: httpx.Client) -> None:
    job = finished(http, accepted(http))
    assert code(http.get(f"{JOBS}/{job['id']}/images/1")) == (404, "image_not_found")
    assert http.get(f"{JOBS}/{job['id']}/images/-1").status_code == 404
    assert http.get(f"{JOBS}/{job['id']}/images/x").status_code == 400


def test_a_range_behind_the_end_is_refused_with_the_size(http: httpx.Client) -> None:
    url = finished(http, accepted(http))["images"][0]["url"]
    size = len(http.get(url).content)
    refused = http.get(url, headers={"Range": f"bytes={size}-"})
    assert code(refused) == (416, "range_not_satisfiable")
    assert refused.headers["Content-Range"] == f"bytes */{size}"


def test_who_has_a_picture_does_not_get_it_again(http: httpx.Client) -> None:
    url = finished(http, accepted(http))["images"][0]["url"]
    etag = http.get(url).headers["ETag"]
    again = http.get(url, headers={"If-None-Match": f'"other", {etag}', "Range": "bytes=0-1"})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == etag
    assert http.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_job_has_no_stream(http: httpx.Client) -> None:
    answer = submit(http, stream=True)
    assert code(answer) == (400, "invalid_value")
    assert answer.json()["error"]["param"] == "stream"


def test_a_wrong_body_is_refused_like_anywhere(http: httpx.Client) -> None:
    answer = submit(http, n=11)
    assert answer.json()["error"]["message"] == "n is 11; it must be from 1 to 10"


# ---------------------------------------------------------------------- lists


def test_jobs_are_listed_newest_first_in_pages(engine: EngineThread) -> None:
    with engine.serve() as http:
        ids = [accepted(http, user=f"u{number % 2}")["id"] for number in range(5)]
        for id in ids:
            finished(http, {"id": id})
        first = http.get(JOBS, params={"limit": 3}).json()
        rest = http.get(JOBS, params={"limit": 3, "after": first["data"][-1]["id"]}).json()
        assert [job["id"] for job in first["data"] + rest["data"]] == ids[::-1]
        assert (first["has_more"], rest["has_more"]) == (True, False)
        mine = http.get(JOBS, params={"user": "u1"}).json()["data"]
        assert [job["id"] for job in mine] == [ids[3], ids[1]]
        assert http.get(JOBS, params={"status": "failed"}).json()["data"] == []
        both = http.get(JOBS, params={"status": ["failed", "succeeded"]}).json()["data"]
        assert len(both) == 5


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"status": "done"}, "status.0"),
        ({"after": UNKNOWN}, "after"),
        ({"state": "failed"}, "state"),
    ],
)
def test_a_wrong_page_is_refused(http: httpx.Client, params: dict[str, Any], param: str) -> None:
    answer = http.get(JOBS, params=params)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


# ---------------------------------------------------------------------- idempotency


def test_a_repeated_key_gets_the_first_job(http: httpx.Client) -> None:
    first, again = submit(http, "key-1", seed=None), submit(http, "key-1", seed=None)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    assert first.headers["Location"] == again.headers["Location"]
    assert first.json()["request"]["seed"] == again.json()["request"]["seed"]


def test_a_key_of_another_request_is_refused(http: httpx.Client) -> None:
    assert submit(http, "key-2").status_code == 202
    assert code(submit(http, "key-2", seed=2)) == (422, "idempotency_mismatch")


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_a_key_that_is_none_is_refused(http: httpx.Client, key: str) -> None:
    assert code(submit(http, key)) == (400, "invalid_value")


def test_callers_who_come_at_once_with_one_key_make_one_job(engine: EngineThread) -> None:
    with engine.serve() as http, ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: submit(http, "at once", seed=None), range(8)))
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert [answer.status_code for answer in answers].count(202) == 1
        finished(http, answers[0].json())
        assert len(http.get(JOBS).json()["data"]) == 1


def test_a_generation_with_a_key_is_done_once(engine: EngineThread) -> None:
    with engine.serve() as http:
        body = {"prompt": "a boat", "n": 2}
        headers = {"Idempotency-Key": "once"}
        answers = [http.post(GENERATIONS, json=body, headers=headers).json() for _ in range(2)]
        assert answers[0]["data"] == answers[1]["data"]
        assert answers[0]["timings"] == answers[1]["timings"]
        [job] = http.get(JOBS).json()["data"]
        named = http.post(GENERATIONS, json=body, headers=headers).headers["X-Chairlift-Id"]
        assert named == job["id"]
        assert metric(http, "chairlift_images_total") == 2
        streamed = body | {"stream": True}
        with event_stream(http, "POST", GENERATIONS, json=streamed, headers=headers) as events:
            seen = list(events)
        assert [event.data["b64_json"] for event in seen] == [
            image["b64_json"] for image in answers[0]["data"]
        ]
        mismatch = http.post(GENERATIONS, json=body | {"n": 1}, headers=headers)
        assert code(mismatch) == (422, "idempotency_mismatch")


def test_a_generation_with_a_key_goes_on_without_its_caller(slow_engine: EngineThread) -> None:
    client = slow_engine.client
    body = LONG | {"n": 4}
    headers = {"Idempotency-Key": "lost"}
    with slow_engine.serve() as http:
        with pytest.raises(httpx.ReadTimeout):
            http.post(GENERATIONS, json=body, headers=headers, timeout=0.2)
        assert client.pending_rows == 4
        again = http.post(GENERATIONS, json=body, headers=headers)
        assert again.status_code == 200
        assert len(http.get(JOBS).json()["data"]) == 1


# ---------------------------------------------------------------------- the server ends


def test_who_waits_for_a_job_when_the_server_ends_hears_how_it_is_then(
    slow_engine: EngineThread,
) -> None:
    request = a_request(id=f"job_{uuid4().hex}", steps=150)
    with slow_engine.jobs() as jobs:
        job, _ = slow_engine.wait_for(jobs.submit(request, warnings=[], user=None))
        looking = slow_engine.start(jobs.give_time(job.id, PATIENCE_SECONDS))
        waiting = slow_engine.start(jobs.wait(job.id))
        wait_until(lambda: (live := jobs.ride(job.id)) and live.boarded.is_set())
    assert looking.result(PATIENCE_SECONDS).status is JobStatus.RUNNING
    with pytest.raises(Unavailable, match="the job goes on when it starts again"):
        waiting.result(PATIENCE_SECONDS)


def test_what_was_accepted_is_finished_after_a_restart(
    slow_engine: EngineThread, tmp_path: Path
) -> None:
    client = slow_engine.client
    with slow_engine.serve(folder=tmp_path) as http:
        done = finished(http, accepted(http))
        riding = accepted(http, **(LONG | {"n": 1, "num_inference_steps": 150}))
        wait_until(lambda: look(http, riding)["status"] == "running")
        waiting = accepted(http, seed=5)
    # Both servers have this engine, which must have forgotten the first one's.
    wait_until(
        lambda: client.pending_rows == client.activity.running == client.activity.waiting == 0
    )
    with slow_engine.serve(folder=tmp_path) as http:
        assert look(http, done) == done
        assert http.get(done["images"][0]["url"]).status_code == 200
        later = [finished(http, job) for job in (riding, waiting)]
        assert [job["status"] for job in later] == ["succeeded"] * 2
        expected = b64decode(generate(http, seed=5)["data"][0]["b64_json"])
        assert http.get(later[1]["images"][0]["url"]).content == expected
