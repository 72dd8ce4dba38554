"""Models, health, metrics, and who is on the lift."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import chairlift
from chairlift.engine.client import EngineClient
from chairlift.engine.messages import Activity
from chairlift.engine.worker_config import WorkerConfig
from chairlift.server.app import create_app
from chairlift.server.jobs.data_dir import DataDir
from chairlift.server.jobs.manager import JobManager, Retention
from chairlift.server.jobs.store import JobStore
from tests.builders import create_card
from tests.running import (
    GENERATIONS,
    PATIENCE_SECONDS,
    EngineThread,
    generate,
    long_request,
    metric,
    wait_until,
)

METRICS = {
    "chairlift_requests_running": "gauge",
    "chairlift_requests_waiting": "gauge",
    "chairlift_requests": "counter",
    "chairlift_images": "counter",
    "chairlift_request_seconds": "histogram",
    "chairlift_queue_seconds": "histogram",
    "chairlift_tick_seconds": "histogram",
    "chairlift_batch_rows": "histogram",
    "chairlift_backlog_seconds": "gauge",
    "chairlift_worker_restarts": "counter",
    "chairlift_rejected": "counter",
}
"""The design's contract; a counter's sample has ``_total`` behind its name."""


def test_the_served_model_is_listed_with_its_limits(http: httpx.Client) -> None:
    card = create_card()
    answer = http.get("/v1/models").json()
    assert answer["object"] == "list"
    [model] = answer["data"]
    assert model["id"] == "fake"
    assert (model["object"], model["owned_by"]) == ("model", "chairlift")
    assert model["samplers"] == list(card.samplers)
    assert model["defaults"]["steps"] == card.defaults.steps
    assert model["limits"]["max_pixels"] == card.limits.max_pixels


def test_a_server_with_an_engine_is_alive_and_ready(http: httpx.Client) -> None:
    assert http.get("/health").json() == {"status": "ok"}
    assert http.get("/ready").json() == {"status": "ready"}
    assert http.get("/version").json() == {"version": chairlift.__version__}


def test_a_server_without_an_engine_is_alive_but_not_ready(tmp_path: Path) -> None:
    client = EngineClient(WorkerConfig(model="fake"))

    async def visit() -> dict[str, httpx.Response]:
        store = await JobStore.open(data_dir)
        jobs = JobManager(client, store, Retention())
        transport = httpx.ASGITransport(create_app(client, jobs))
        async with store, httpx.AsyncClient(transport=transport, base_url="http://lift") as http:
            answers = {path: await http.get(path) for path in ("/health", "/ready", "/v1/models")}
            answers["post"] = await http.post(GENERATIONS, json={"prompt": "a boat"})
            texts.append((await http.get("/metrics")).text)
            return answers

    texts: list[str] = []
    with DataDir.open(tmp_path) as data_dir:
        answers = asyncio.run(visit())
    assert answers.pop("/health").status_code == 200
    assert {answer.status_code for answer in answers.values()} == {503}
    assert {answer.json()["error"]["code"] for answer in answers.values()} == {"unavailable"}
    assert answers["/ready"].headers["Retry-After"] == "1"
    lines = texts[0].splitlines()
    assert "chairlift_ready 0.0" in lines
    assert 'chairlift_rejected_total{reason="unavailable"} 1.0' in lines  # only who posted


# ---------------------------------------------------------------------- metrics


def test_every_metric_of_the_contract_is_exported(http: httpx.Client) -> None:
    answer = http.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert {name: families[name].type for name in METRICS} == METRICS
    assert all(family.documentation for family in families.values())
    samples = {sample.name for family in families.values() for sample in family.samples}
    for name, kind in METRICS.items():
        if name != "chairlift_rejected":  # has no sample until there is a reason
            assert name + {"counter": "_total", "histogram": "_count"}.get(kind, "") in samples


def test_no_label_names_a_prompt_or_a_request(http: httpx.Client) -> None:
    generate(http, prompt="unmistakable", user="somebody")
    http.post(GENERATIONS, json={"prompt": "unmistakable", "unmistakable": 1})
    http.get("/unmistakable")
    text = http.get("/metrics").text
    assert "unmistakable" not in text
    labels = {
        name: value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        for name, value in sample.labels.items()
    }
    about = {"version", "model", "dtype", "device"}
    assert labels.keys() == {"le", "outcome", "reason", "stage", "status"} | about


def test_finished_requests_and_their_pictures_are_counted(engine: EngineThread) -> None:
    with engine.serve() as http:
        generate(http, n=3)
        generate(http, n=1)
        assert metric(http, 'chairlift_requests_total{outcome="finished"}') == 2
        assert metric(http, 'chairlift_requests_total{outcome="failed"}') == 0
        assert metric(http, "chairlift_images_total") == 4
        assert metric(http, "chairlift_request_seconds_count") == 2
        assert metric(http, "chairlift_queue_seconds_count") == 2
        for stage in ("encode", "denoise", "decode"):
            assert metric(http, f'chairlift_stage_seconds_count{{stage="{stage}"}}') == 2


def test_metrics_say_what_is_served(http: httpx.Client) -> None:
    [card] = http.get("/v1/models").json()["data"]
    families = {
        family.name: family for family in text_string_to_metric_families(http.get("/metrics").text)
    }
    [about] = families["chairlift_info"].samples
    assert about.value == 1
    assert about.labels == {"version": chairlift.__version__, "model": card["id"]} | {
        name: card[name] for name in ("dtype", "device")
    }
    assert families["chairlift_ready"].samples[0].value == 1
    assert not any(name.endswith("_created") for name in families)


def test_ticks_are_counted_with_their_rows(engine: EngineThread) -> None:
    with engine.serve() as http:
        generate(http, n=3, num_inference_steps=7)
        wait_until(lambda: metric(http, "chairlift_batch_rows_sum") == 3 * 7)
        assert metric(http, "chairlift_tick_seconds_count") == 7


def test_the_gauges_follow_the_work(slow_http: httpx.Client, slow_client: EngineClient) -> None:
    with long_request(slow_http, slow_client):
        wait_until(lambda: metric(slow_http, "chairlift_requests_running") == 1)
        assert metric(slow_http, "chairlift_requests_waiting") == 0
        assert metric(slow_http, "chairlift_backlog_seconds") > 0
    generate(slow_http)
    wait_until(lambda: metric(slow_http, "chairlift_requests_running") == 0)
    assert metric(slow_http, "chairlift_backlog_seconds") == 0


# ---------------------------------------------------------------------- the lift


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """What a browser's EventSource makes of the lines."""
    data: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        if name == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            yield json.loads("\n".join(data))
            data = []


def test_the_lift_shows_every_tick_with_its_riders(engine: EngineThread) -> None:
    with engine.serve() as http, http.stream("GET", "/v1/lift") as lift:
        assert lift.headers["Content-Type"].startswith("text/event-stream")
        lines = lift.iter_lines()
        now = next(events(lines))  # from here on, nothing is missed
        assert (now["ticks"], now["running"], now["waiting"], now["queue"]) == ([], 0, 0, [])
        visitor = threading.Thread(
            target=generate,
            args=(http,),
            kwargs={"n": 2, "num_inference_steps": 4, "size": "96x72"},
        )
        visitor.start()
        ticks: list[dict[str, Any]] = []
        for event in events(lines):
            ticks += event["ticks"]
            if event["running"] == 0:
                break
        visitor.join()
    assert [(tick["width"], tick["height"]) for tick in ticks] == [(96, 72)] * 4
    assert all(tick["seconds"] >= 0 for tick in ticks)
    [name] = {name for tick in ticks for (name, _), _, _ in tick["riders"]}
    assert [tick["riders"] for tick in ticks] == [
        [[[name, 0], step, 4], [[name, 1], step, 4]] for step in range(4)
    ]


def test_a_spectator_who_leaves_is_forgotten(
    http: httpx.Client, client: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten = threading.Event()
    listen = client.listen

    def watched(listener: Callable[[Activity], None]) -> Callable[[], None]:
        stop = listen(listener)

        def stop_and_tell() -> None:
            stop()
            forgotten.set()

        return stop_and_tell

    monkeypatch.setattr(client, "listen", watched)
    with http.stream("GET", "/v1/lift") as lift:
        lines = lift.iter_lines()  # kept: when it is thrown away, the stream is closed
        next(lines)
        assert not forgotten.is_set()
    assert forgotten.wait(PATIENCE_SECONDS)


def test_a_spectator_who_does_not_read_holds_nobody_up(http: httpx.Client) -> None:
    with http.stream("GET", "/v1/lift"):
        assert all(generate(http, n=10)["data"] for _ in range(5))


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/metrics"])
def test_get_is_enough(http: httpx.Client, path: str) -> None:
    assert http.get(path, headers={"Accept": "nonsense/*"}).status_code == 200
