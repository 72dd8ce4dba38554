"""The OpenAPI description is true: Schemathesis reads it, tries everything that it allows and much
that it doesn't, and finds no answer that it doesn't describe.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis

from chairlift.engine.worker_config import WorkerConfig
from tests.fuzz.mutations import EXAMPLES
from tests.running import GENERATIONS, EngineThread
from tests.server.sse import event_stream

ROOT = Path(__file__).parents[2]
KEY = "a-key"
OPERATIONS = {
    "POST /v1/images/generations",
    "POST /v1/jobs",
    "GET /v1/jobs",
    "GET /v1/jobs/{job_id}",
    "GET /v1/jobs/{job_id}/events",
    "DELETE /v1/jobs/{job_id}",
    "POST /v1/jobs/{job_id}/cancel",
    "GET /v1/jobs/{job_id}/images/{index}",
    "POST /v1/requests/{request_id}/cancel",
    "GET /v1/models",
    "GET /v1/models/{model_id}",
    "GET /v1/policy",
    "PUT /v1/policy",
    "GET /v1/lift",
    "GET /health",
    "GET /ready",
    "GET /version",
    "GET /metrics",
}


@pytest.fixture(scope="module")
def document(http: httpx.Client) -> dict[str, Any]:
    document: dict[str, Any] = http.get("/openapi.json").json()
    return document


@pytest.fixture
def own_http() -> Iterator[httpx.Client]:
    """A server whose engine's policy may change; a request takes long enough to be cancelled, and
    none is refused for want of room.
    """
    config = WorkerConfig(model="fake:0.005", max_batch_size=16)
    with EngineThread(config) as engine, engine.serve(max_queue=100_000) as http:
        yield http


def run_schemathesis(http: httpx.Client, folder: Path, *options: str) -> str:
    """What it says, if it finds nothing wrong."""
    config = str(ROOT / "tests/server/schemathesis.toml")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", config, "run"]
    done = subprocess.run(
        [*command, f"{http.base_url}/openapi.json", "--no-color", *options],
        cwd=folder,  # where it keeps a cache
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def operations(document: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def test_schemathesis_finds_nothing_wrong(own_http: httpx.Client, tmp_path: Path) -> None:
    more = ("--max-examples", str(EXAMPLES)) if EXAMPLES else ()
    said = run_schemathesis(own_http, tmp_path, *more)
    assert f"{len(OPERATIONS)} selected / {len(OPERATIONS)} total" in said
    assert own_http.get("/ready").status_code == 200


def test_schemathesis_does_not_come_in_without_the_key(
    engine: EngineThread, tmp_path: Path
) -> None:
    bearer = f"Authorization: Bearer {KEY}"
    checks = "ignored_auth,status_code_conformance,response_headers_conformance"
    with engine.serve(api_key=KEY) as http:
        run_schemathesis(
            http, tmp_path, "-H", bearer, "-c", checks, "--phases", "fuzzing", "--max-examples", "3"
        )


@pytest.mark.parametrize("of_a_job", [False, True])
def test_half_made_pictures_are_described(
    slow_http: httpx.Client, document: dict[str, Any], of_a_job: bool
) -> None:
    body = {"prompt": "a boat", "num_inference_steps": 30, "partial_images": 2}
    if of_a_job:
        id = slow_http.post("/v1/jobs", json=body).json()["id"]
        stream = event_stream(slow_http, "GET", f"/v1/jobs/{id}/events")
        described = document["paths"]["/v1/jobs/{job_id}/events"]["get"]
    else:
        stream = event_stream(slow_http, "POST", GENERATIONS, json=body | {"stream": True})
        described = document["paths"][GENERATIONS]["post"]
    content = described["responses"]["200"]["content"]["text/event-stream"]["itemSchema"]["anyOf"]
    kinds = {kind["properties"]["event"]["const"]: kind["properties"]["data"] for kind in content}
    with stream as events:
        seen = list(events)
    assert sum("partial_image" in event.name for event in seen) == 2
    for event in seen:
        schema = kinds[event.name]["contentSchema"] | {"components": document["components"]}
        jsonschema_rs.validate(schema, event.data)


def test_the_description_is_openapi(document: dict[str, Any]) -> None:
    schemathesis.openapi.from_dict(document).validate()
    assert operations(document).keys() == OPERATIONS


def test_every_operation_says_what_it_does_and_examples_are_accepted(
    own_http: httpx.Client, document: dict[str, Any]
) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    sent = 0
    for name, operation in operations(document).items():
        assert operation["description"], name
        assert set(operation["tags"]) <= tags
        method, path = name.split()
        for example in _examples(operation).values():
            answer = own_http.request(method, path, json=example["value"])
            assert answer.is_success, (name, example, answer.text)
            sent += 1
    assert sent == 6


def _examples(operation: dict[str, Any]) -> dict[str, Any]:
    if "requestBody" not in operation:
        return {}
    examples: dict[str, Any] = operation["requestBody"]["content"]["application/json"]["examples"]
    return examples


def test_wrong_values_are_described_as_they_are_answered(document: dict[str, Any]) -> None:
    assert "HTTPValidationError" not in json.dumps(document)
    mismatch = {
        name for name, operation in operations(document).items() if "422" in operation["responses"]
    }
    assert mismatch == {"POST /v1/images/generations", "POST /v1/jobs"}


def test_only_a_locked_server_asks_for_a_key(
    document: dict[str, Any], engine: EngineThread
) -> None:
    assert "401" not in json.dumps(document)
    headers = {"Authorization": f"Bearer {KEY}"}
    with engine.serve(api_key=KEY) as http:
        locked = operations(http.get("/openapi.json", headers=headers).json())
    open_ones = {name for name, operation in locked.items() if "security" not in operation}
    assert open_ones == {name for name in locked if "401" not in locked[name]["responses"]}
    assert open_ones == {"GET /health"}


def test_another_programs_routes_are_not_described(
    document: dict[str, Any], engine: EngineThread
) -> None:
    with engine.serve(compat="a1111") as http:
        assert http.get("/sdapi/v1/samplers").status_code == 200
        assert http.get("/openapi.json").json() == document


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/oauth2-redirect"])
def test_there_is_no_page_that_loads_from_other_hosts(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 404


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/jobs", "GET, HEAD, POST"),
        ("/v1/policy", "GET, HEAD, PUT"),
        ("/", "GET, HEAD"),
        ("/v1/images/generations", "POST"),
    ],
)
def test_allow_names_the_methods_of_all_routes_of_a_path(
    http: httpx.Client, path: str, methods: str
) -> None:
    assert http.delete(path).headers["Allow"] == methods
