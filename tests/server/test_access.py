"""The API key: who may come in."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.running import GENERATIONS, EngineThread, generate, metric

KEY = "schlüssel-1234"
PATHS = ["/v1/models", "/ready", "/version", "/metrics", "/v1/lift", "/openapi.json", "/nothing"]


@pytest.fixture(scope="module")
def locked(engine: EngineThread) -> Iterator[httpx.Client]:
    """Without a key of its own."""
    with engine.serve(api_key=KEY) as http:
        yield http


def bearer(key: str) -> dict[str, bytes]:
    return {"Authorization": b"Bearer " + key.encode()}


def assert_is_locked(answer: httpx.Response) -> None:
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json() == {
        "error": {
            "message": "send the API key as a bearer token",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_api_key",
        }
    }


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_seen_without_the_key(locked: httpx.Client, path: str) -> None:
    assert_is_locked(locked.get(path))


@pytest.mark.parametrize(
    "authorization",
    [
        b"",
        b"Bearer",
        b"Bearer wrong",
        b"Bearer \xff\xfe",
        KEY.encode(),
        b"Basic " + KEY.encode(),
        b"Bearer " + KEY.encode() + b"5",
        b"Bearer " + KEY.encode()[:-1],
    ],
    ids=repr,
)
def test_a_wrong_key_is_no_key(locked: httpx.Client, authorization: bytes) -> None:
    headers = {"Authorization": authorization}
    assert_is_locked(locked.get("/v1/models", headers=headers))
    assert_is_locked(locked.post(GENERATIONS, json={"prompt": "a boat"}, headers=headers))


@pytest.mark.parametrize("content", [b"", b"[", b'{"n": 0}', b" " * 2 * 2**20], ids=len)
def test_without_the_key_a_body_is_not_even_looked_at(locked: httpx.Client, content: bytes) -> None:
    assert_is_locked(locked.post(GENERATIONS, content=content))


def test_health_needs_no_key(locked: httpx.Client) -> None:
    assert locked.get("/health").status_code == 200


def test_the_key_opens(locked: httpx.Client) -> None:
    headers = bearer(KEY)
    assert locked.get("/v1/models", headers=headers).status_code == 200
    assert locked.get("/nothing", headers=headers).status_code == 404
    answer = locked.post(GENERATIONS, json={"prompt": "a boat"}, headers=headers)
    assert answer.status_code == 200


def test_refused_keys_are_counted(engine: EngineThread) -> None:
    with engine.serve(api_key="key") as locked:
        locked.get("/v1/models")
        locked.headers["Authorization"] = "Bearer key"
        assert metric(locked, 'chairlift_rejected_total{reason="invalid_api_key"}') == 1


def test_without_a_key_set_everybody_comes_in(http: httpx.Client) -> None:
    assert generate(http)["data"]
    assert http.get("/v1/models", headers=bearer("whatever")).status_code == 200
