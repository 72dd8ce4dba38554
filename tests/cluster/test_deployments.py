"""Clusters of other shapes on this machine: full, with several front ends, without a replica."""

from __future__ import annotations

import json
import select
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from http.client import HTTPResponse
from itertools import islice
from pathlib import Path
from socket import socket
from typing import Any

import httpx
import pytest

from chairlift.cluster.autoscaling import AutoscalingOptions
from chairlift.engine.worker_config import WorkerConfig
from tests.cluster.running import WORKER, Cluster, caller_of, pictures
from tests.running import GENERATIONS, LONG, PATIENCE_SECONDS, metric, wait_until
from tests.server.sse import event_stream

BOAT = {"prompt": "a boat", "seed": 7, "num_inference_steps": 4}
ENDLESS = WorkerConfig(model="fake:0.5")
"""A request of many steps isn't done before its caller has gone."""
ONE = LONG | {"n": 1}


# ---------------------------------------------------------------------- full


def first_answers(connections: Sequence[socket], status: int, count: int) -> list[HTTPResponse]:
    """The first so many of a status; streams may begin meanwhile."""
    waiting, answers = list(connections), list[HTTPResponse]()
    while len(answers) < count:
        readable, _, _ = select.select(waiting, [], [], PATIENCE_SECONDS)
        assert readable, "waited in vain"
        for connection in readable:
            waiting.remove(connection)
            answer = HTTPResponse(connection)
            answer.begin()
            assert answer.status in (status, 200)
            if answer.status == status:
                answers.append(answer)
    return answers


@pytest.mark.parametrize("stream", [False, True], ids=["answer", "stream"])
def test_who_finds_all_full_is_told_when_to_come_again(
    cluster: Cluster, tmp_path: Path, stream: bool
) -> None:
    """Of six, two ride, two may wait, and the front end would have taken all."""
    never = AutoscalingOptions(
        min_replicas=1, max_replicas=3, target_seconds=1e6, scale_in_delay_s=0.2
    )
    cluster.deploy(tmp_path, worker=ENDLESS, autoscaling=never, max_queue=2)
    # There may be those of another test, and what its callers have left behind: an old front end
    # would let in as many once more.
    wait_until(lambda: len(cluster.front_ends()) == len(cluster.replicas()) == 1)
    wait_until(lambda: cluster.busy() == 0)
    with ExitStack() as callers:
        body = ONE | {"stream": stream}

        def call(count: int) -> list[socket]:
            return [callers.enter_context(caller_of(cluster.http, body)) for _ in range(count)]

        riding = call(2)
        # Serve's router counts nobody whom it is just sending off: while it does, it may let in
        # one more than may wait.
        wait_until(lambda: metric(cluster.http, "chairlift_requests_running") == 2)
        connections = riding + call(4)
        for answer in first_answers(connections, 429, 2):
            assert int(answer.headers["Retry-After"]) > 0
            error = json.loads(answer.read())["error"]
            assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
            assert "no replica has room" in error["message"]
        job = cluster.http.post("/v1/jobs", json=BOAT)
        assert job.status_code == 202
    with event_stream(cluster.http, "GET", f"/v1/jobs/{job.json()['id']}/events") as events:
        assert [event.name for event in events][-1] == "job.succeeded"


# ---------------------------------------------------------------------- several front ends


def ids_aboard(http: httpx.Client) -> set[str]:
    """Requests of the front end that happens to answer."""
    ids = set()
    with (
        suppress(httpx.ReadTimeout),
        event_stream(http, "GET", "/v1/lift", timeout=httpx.Timeout(2.0)) as events,
    ):
        for event in islice(events, 3):
            for tick in event.data["ticks"]:
                ids |= {request_id for (request_id, _), *_ in tick["riders"]}
    return ids


def test_two_front_ends_serve_one_cluster(
    cluster: Cluster, single: httpx.Client, tmp_path: Path
) -> None:
    http = cluster.http
    fixed = AutoscalingOptions()
    cluster.deploy(tmp_path, worker=WORKER, autoscaling=fixed, front_ends=2, data_dir=None)
    assert len(cluster.front_ends()) == 2
    bodies: list[dict[str, Any]] = [BOAT | {"seed": seed} for seed in range(24)]
    found = [pictures(http.post(GENERATIONS, json=body)) for body in bodies]
    assert found == [pictures(single.post(GENERATIONS, json=body)) for body in bodies]
    finished = 'chairlift_requests_total{outcome="finished"}'
    assert max(metric(http, finished) for _ in range(24)) < len(bodies)

    cluster.deploy(tmp_path, worker=ENDLESS, autoscaling=fixed, front_ends=2, data_dir=None)
    with ExitStack() as callers:
        # Serve gives one to each front end, and what else comes to either.
        one = callers.enter_context(caller_of(http, ONE))
        wait_until(lambda: cluster.busy() == 1)
        other = callers.enter_context(caller_of(http, ONE))
        aboard = set[str]()

        def find() -> bool:
            aboard.update(ids_aboard(http))
            return bool(aboard)

        def cancel() -> bool:
            status = http.post(f"/v1/requests/{min(aboard)}/cancel").status_code
            assert status in (200, 501)
            return status == 200

        wait_until(find)
        wait_until(cancel)
        first_answers([one, other], 499, 1)
    wait_until(lambda: cluster.busy() == 0)


# ---------------------------------------------------------------------- without a replica


def test_the_last_replica_goes_and_comes_again_for_who_waits(
    cluster: Cluster, single: httpx.Client, tmp_path: Path
) -> None:
    http = cluster.http
    none = AutoscalingOptions(min_replicas=0, scale_in_delay_s=0.5, max_wait_s=0.5)
    cluster.deploy(tmp_path, autoscaling=none)
    wait_until(lambda: not cluster.replicas())
    refused = http.post(GENERATIONS, json=BOAT)
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert refused.json()["error"]["code"] == "unavailable"
    job = http.post("/v1/jobs", json=BOAT).json()
    with event_stream(http, "GET", f"/v1/jobs/{job['id']}/events") as events:
        assert [event.name for event in events][-1] == "job.succeeded"
    picture = http.get(f"/v1/jobs/{job['id']}/images/0").content
    assert [picture] == pictures(single.post(GENERATIONS, json=BOAT))
    assert pictures(http.post(GENERATIONS, json=BOAT)) == [picture]
