"""A cluster on this machine, seen from outside: it does what a single server does, and goes on when
a replica dies, comes or goes.

The tests run in this order, and the last ones deploy it anew.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from chairlift.cluster.autoscaling import AutoscalingOptions
from tests.cluster.running import Calls, Cluster, caller_of, pictures
from tests.running import GENERATIONS, LONG, metric, wait_until
from tests.server.sse import event_stream

EXAMPLES = Path(__file__).parents[2] / "examples" / "ray"
BOAT = {"prompt": "a boat", "seed": 7, "num_inference_steps": 4}
STREAM = LONG | {"n": 1, "stream": True, "partial_images": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def http(cluster: Cluster, folder: Path) -> httpx.Client:
    """Two replicas."""
    cluster.deploy(folder, autoscaling=AutoscalingOptions(min_replicas=2, max_replicas=2))
    return cluster.http


# ---------------------------------------------------------------------- as a single server

OWN_HEADERS = {"date", "server", "content-length"}
OWN_HEADERS |= {"x-request-id", "x-chairlift-id", "x-chairlift-eta"}


def answer_of(http: httpx.Client, method: str, path: str, **more: Any) -> tuple[object, ...]:
    """All of an answer but what no two have equal: times, and the ids of HTTP requests."""
    answer = http.request(method, path, **more)
    content: Any = answer.content
    if path == GENERATIONS and answer.status_code == 200:
        content = answer.json()
        assert content.pop("created") > 0
        assert content["timings"].pop("total_s") > 0
        content["timings"] = content["timings"]["steps"]
    headers = {k: v for k, v in answer.headers.items() if k not in OWN_HEADERS}
    assert len(answer.headers.get_list("x-request-id")) == 1
    return answer.status_code, content, headers


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("POST", GENERATIONS, {"json": BOAT}),
        ("POST", GENERATIONS, {"json": BOAT | {"n": 3, "size": "128x64", "sampler": "ddim"}}),
        ("POST", GENERATIONS, {"json": BOAT | {"output_format": "jpeg", "quality": "high"}}),
        ("POST", GENERATIONS, {"json": BOAT | {"stepz": 3}}),
        ("POST", GENERATIONS, {"json": BOAT | {"n": 99}}),
        ("POST", GENERATIONS, {"content": b"{", "headers": {"Content-Type": "application/json"}}),
        ("POST", GENERATIONS, {"data": {"prompt": "a form"}}),
        ("POST", GENERATIONS, {"json": BOAT, "headers": {"Authorization": "Bearer wrong"}}),
        ("POST", GENERATIONS, {"json": BOAT, "headers": {"Sec-Fetch-Site": "cross-site"}}),
        ("GET", "/v1/models", {}),
        ("GET", "/v1/jobs", {}),
        ("GET", "/v1/jobs/job_none", {}),
        ("POST", "/v1/requests/none/cancel", {}),
        ("GET", "/nowhere", {}),
        ("DELETE", "/v1/jobs", {}),
        ("GET", "/ready", {}),
        ("GET", "/openapi.json", {}),
        ("GET", "/", {}),
        ("HEAD", "/", {}),
    ],
)
def test_an_answer_is_that_of_a_single_server(
    http: httpx.Client, single: httpx.Client, method: str, path: str, more: dict[str, Any]
) -> None:
    assert answer_of(http, method, path, **more) == answer_of(single, method, path, **more)


def events_of(http: httpx.Client, body: dict[str, Any]) -> list[tuple[str, list[Any]]]:
    """The pictures in a stream, and what they are."""
    told = ("partial_image_index", "step", "image_index", "seed")
    with event_stream(http, "POST", GENERATIONS, json=body) as events:
        return sorted(
            (
                event.name,
                [event.data.get(field) for field in told]
                # How previews look is learned, and not the same everywhere.
                + [event.name.endswith("completed") and event.data["b64_json"]],
            )
            for event in events
        )


def test_a_stream_has_the_events_of_a_single_server(
    http: httpx.Client, single: httpx.Client
) -> None:
    body = BOAT | {"n": 2, "stream": True, "partial_images": 2, "num_inference_steps": 8}
    events = events_of(http, body)
    assert events == events_of(single, body)
    assert [name for name, _ in events].count("image_generation.partial_image") == 4


def test_a_preview_comes_before_the_picture_is_done(http: httpx.Client) -> None:
    with event_stream(http, "POST", GENERATIONS, json=STREAM) as events:
        assert next(events).name == "image_generation.partial_image"
        assert metric(http, "chairlift_requests_running") == 1


def test_a_job_is_done_and_kept(http: httpx.Client, single: httpx.Client) -> None:
    key = {"Idempotency-Key": "one"}
    job = http.post("/v1/jobs", json=BOAT, headers=key).json()
    with event_stream(http, "GET", f"/v1/jobs/{job['id']}/events") as events:
        assert [event.name for event in events][-1] == "job.succeeded"
    again = http.post("/v1/jobs", json=BOAT, headers=key)
    assert (again.status_code, again.json()["id"]) == (200, job["id"])
    picture = http.get(f"/v1/jobs/{job['id']}/images/0").content
    assert [picture] == pictures(single.post(GENERATIONS, json=BOAT))


# ---------------------------------------------------------------------- the replicas


@pytest.mark.parametrize("body", [LONG, STREAM], ids=["answer", "stream"])
def test_who_goes_away_frees_the_slots_in_the_replica(
    cluster: Cluster, http: httpx.Client, body: dict[str, Any]
) -> None:
    wait_until(lambda: cluster.busy() == 0)
    with caller_of(http, body):
        wait_until(lambda: cluster.busy() == 1)
    wait_until(lambda: cluster.busy() == 0)
    assert metric(http, "chairlift_requests_running") == 0


def test_the_second_of_two_requests_goes_to_the_other_replica(
    cluster: Cluster, http: httpx.Client
) -> None:
    with caller_of(http, LONG), caller_of(http, LONG):
        wait_until(lambda: cluster.busy() == 2)
    wait_until(lambda: cluster.busy() == 0)


def test_what_a_killed_replica_owed_is_done_by_another(
    cluster: Cluster, http: httpx.Client, single: httpx.Client
) -> None:
    before = metric(http, "chairlift_worker_restarts_total")
    calls = Calls(http, BOAT | {"num_inference_steps": 200, "sampler": "heun"})
    # For a second or two the router goes by what the replicas told before.
    calls.call_until(lambda: cluster.busy() == 2)
    cluster.replicas()[0].kill()
    found = calls.pictures()
    assert metric(http, "chairlift_worker_restarts_total") > before
    assert found == [pictures(single.post(GENERATIONS, json=body)) for body in calls.bodies]


# ---------------------------------------------------------------------- more and fewer of them


@pytest.mark.parametrize("file", ["serve.yaml", "rayservice.yaml"])
def test_the_examples_are_what_serve_takes(cluster: Cluster, file: str) -> None:
    example = yaml.safe_load((EXAMPLES / file).read_text(encoding="utf-8"))
    if "spec" in example:
        example = yaml.safe_load(example["spec"]["serveConfigV2"])
    cluster.order("validate", example)


def test_replicas_come_with_the_work_and_go_without_dropping_any(
    cluster: Cluster, folder: Path
) -> None:
    """From two to one, to two, and to one, while a caller comes again and again."""
    scaling = AutoscalingOptions(
        min_replicas=1,
        max_replicas=2,
        target_seconds=1.0,
        scale_out_delay_s=0.2,
        scale_in_delay_s=0.5,
    )
    cluster.deploy(folder, autoscaling=scaling)
    wait_until(lambda: len(cluster.replicas()) == 1)
    stop = threading.Event()

    def call() -> list[int]:
        statuses = []
        while not stop.is_set():
            answer = cluster.http.post(GENERATIONS, json=BOAT | {"num_inference_steps": 20})
            statuses.append(answer.status_code)
        return statuses

    with ThreadPoolExecutor(1) as caller, ThreadPoolExecutor(3) as callers:
        calling = caller.submit(call)
        try:
            long = BOAT | {"num_inference_steps": 200, "n": 10}
            answers = callers.map(lambda _: cluster.http.post(GENERATIONS, json=long), range(3))
            wait_until(lambda: len(cluster.replicas()) == 2)
            assert {answer.status_code for answer in answers} == {200}
            wait_until(lambda: len(cluster.replicas()) == 1)
        finally:
            stop.set()
        assert set(calling.result()) == {200}
