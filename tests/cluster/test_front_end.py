"""A front end without replicas, a data folder, or Ray: the application is that of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest

from chairlift.cluster import front_end as front_end_module
from chairlift.cluster.autoscaling import AutoscalingOptions
from chairlift.cluster.config import ClusterConfig
from chairlift.cluster.front_end import KEY_VARIABLE, FrontEnd
from chairlift.engine.worker_config import WorkerConfig
from tests.cluster.builders import FakeReplicas, finishes
from tests.running import GENERATIONS
from tests.server.test_tracing import Spans, attributes, id_of, parent

BOAT = {"prompt": "a boat"}


def ask(work: Callable[[httpx.AsyncClient], Awaitable[Any]], **options: Any) -> Any:
    """What comes of work with a front end, whose options these are."""
    config = ClusterConfig(worker=WorkerConfig(), autoscaling=AutoscalingOptions(), **options)

    async def run() -> Any:
        front_end = FrontEnd(config, FakeReplicas(finishes))
        await front_end.start()
        transport = httpx.ASGITransport(front_end.create_app())
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                return await work(http)
        finally:
            await front_end.close()

    return asyncio.run(run())


def test_a_picture_is_a_replicas() -> None:
    answer = ask(lambda http: http.post(GENERATIONS, json=BOAT))
    assert answer.status_code == 200
    assert answer.json()["data"][0]["b64_json"] == "YSBwaWN0dXJl"
    assert "x-request-id" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("POST", "/v1/jobs", {"json": BOAT}),
        ("GET", "/v1/jobs", {}),
        ("GET", "/v1/jobs/a/events", {}),
        ("POST", GENERATIONS, {"json": BOAT, "headers": {"Idempotency-Key": "a"}}),
        ("PUT", "/v1/policy", {"json": {"policy": "fcfs"}}),
    ],
)
def test_what_a_cluster_without_a_data_folder_does_not_do_is_said(
    method: str, path: str, more: dict[str, Any]
) -> None:
    answer = ask(lambda http: http.request(method, path, **more))
    assert answer.status_code == 501
    assert answer.json()["error"]["code"] == "unsupported"


@pytest.mark.parametrize(("front_ends", "status"), [(1, 404), (2, 501)])
def test_a_request_that_another_front_end_may_have_is_not_called_unknown(
    front_ends: int, status: int
) -> None:
    path = "/v1/requests/req_other/cancel"
    answer = ask(lambda http: http.post(path), front_ends=front_ends)
    assert answer.status_code == status
    assert ("close its connection" in answer.json()["error"]["message"]) == (status == 501)


def test_what_operators_ask_is_answered_without_jobs() -> None:
    async def get_all(http: httpx.AsyncClient) -> list[int]:
        paths = ("/health", "/ready", "/metrics", "/v1/models", "/v1/policy")
        return [(await http.get(path)).status_code for path in paths]

    assert ask(get_all) == [200] * 5


def test_jobs_are_kept_where_there_is_a_data_folder(tmp_path: Path) -> None:
    answer = ask(lambda http: http.post("/v1/jobs", json=BOAT), data_dir=str(tmp_path / "data"))
    assert answer.status_code == 202


def test_keys_are_those_of_the_file_and_of_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("of-file\n")
    (tmp_path / "keys").chmod(0o600)
    monkeypatch.setenv(KEY_VARIABLE, "of-variable")

    async def statuses(http: httpx.AsyncClient) -> list[int]:
        sent = [{"Authorization": f"Bearer {key}"} for key in ("of-file", "of-variable", "other")]
        return [(await http.get("/v1/models", headers=one)).status_code for one in sent]

    assert ask(statuses, api_key_file=str(tmp_path / "keys")) == [200, 200, 401]


def test_a_request_is_traced_where_the_environment_wants_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spans = Spans()
    monkeypatch.setattr(front_end_module, "open_tracing", lambda: nullcontext(spans.tracing))
    ask(lambda http: http.post(GENERATIONS, json=BOAT))
    generate = spans.all["generate"]
    assert attributes(generate)["chairlift.outcome"] == "finished"
    assert parent(generate) == id_of(spans.all[f"POST {GENERATIONS}"])
