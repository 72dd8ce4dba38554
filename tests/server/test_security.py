"""What a foreign web page can't do, what headers answers have, and what errors don't say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any

import httpx
import pytest

from chairlift.engine.client import EngineClient
from chairlift.errors import ConfigurationError
from chairlift.server.access import Access
from tests.running import GENERATIONS, EngineThread, connect, generate

FRIEND = "https://friend.example"
STRANGER = "https://stranger.example"
KEY = "a-key"
BODY = json.dumps({"prompt": "a boat"}).encode()
FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def friendly(engine: EngineThread) -> Iterator[httpx.Client]:
    """A server with a key, which the pages of a friend may call."""
    with engine.serve(access=Access(keys=(KEY,), cors_origins=(FRIEND,))) as http:
        yield http


@pytest.fixture(scope="module")
def own(engine: EngineThread) -> Iterator[httpx.Client]:
    """A server for this machine alone."""
    with engine.serve(access=Access(only_host="127.0.0.1")) as http:
        yield http


def error_code(answer: httpx.Response) -> str:
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return str(error["code"])


# ---------------------------------------------------------------------- headers


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/health", "/metrics", "/nothing"])
def test_every_answer_has_the_headers(http: httpx.Client, path: str) -> None:
    headers = http.get(path).headers
    assert headers.get_list("X-Content-Type-Options") == ["nosniff"]
    assert headers.get_list("Referrer-Policy") == ["no-referrer"]
    assert headers.get_list("Cross-Origin-Resource-Policy") == ["same-origin"]
    assert "Server" not in headers
    assert not [name for name in headers if name.startswith("access-control-")]


def test_a_stream_has_the_headers_and_goes_on(http: httpx.Client) -> None:
    body = {"prompt": "a boat", "stream": True, "partial_images": 2}
    with http.stream("POST", GENERATIONS, json=body) as answer:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert len([line for line in answer.iter_lines() if line.startswith("event:")]) == 3


def test_json_is_not_kept_in_caches_and_what_may_be_is(http: httpx.Client) -> None:
    assert http.get("/v1/models").headers["Cache-Control"] == "no-store"
    assert http.get("/nothing").headers["Cache-Control"] == "no-store"
    assert http.get("/").headers["Cache-Control"] == "no-cache"


def test_also_an_unexpected_error_has_the_headers_and_tells_nothing(
    http: httpx.Client, client: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> None:
        raise ValueError("in /home/operator at 10.0.0.1")

    monkeypatch.setattr(client, "submit", fail)
    # On a connection of its own, which the server closes.
    answer = httpx.post(f"{http.base_url}{GENERATIONS}", json={"prompt": "a boat"})
    assert answer.status_code == 500
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.json()["error"] == {
        "message": "an internal error has occurred",
        "type": "server_error",
        "param": None,
        "code": "internal_error",
    }


# ---------------------------------------------------------------------- content types


@pytest.mark.parametrize("path", [GENERATIONS, "/v1/jobs", "/nothing"])
@pytest.mark.parametrize(
    "content_type",
    [None, "", FORM, "multipart/form-data; boundary=x", "text/plain", "application/jsonp"],
)
def test_what_is_not_sent_as_json_is_refused(
    http: httpx.Client, path: str, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = http.post(path, content=BODY, headers=headers)
    assert (answer.status_code, error_code(answer)) == (415, "unsupported_media_type")


def test_a_policy_is_changed_by_json_alone(http: httpx.Client) -> None:
    answer = http.put("/v1/policy", content=b"{", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_may_be_named_with_parameters_and_in_any_case(
    http: httpx.Client, content_type: str
) -> None:
    answer = http.post(GENERATIONS, content=BODY, headers={"Content-Type": content_type})
    assert answer.status_code == 200


def test_where_nothing_is_sent_no_type_is_needed_but_an_empty_form_is_one(
    http: httpx.Client,
) -> None:
    path = "/v1/requests/req_0/cancel"
    assert http.post(path).status_code == 404
    assert http.post(path, headers={"Content-Type": FORM}).status_code == 415


# ---------------------------------------------------------------------- pages of others


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_foreign_page_changes_nothing(http: httpx.Client, site: str) -> None:
    headers = {"Sec-Fetch-Site": site, "Origin": STRANGER}
    for path in (GENERATIONS, "/v1/requests/req_0/cancel"):
        answer = http.post(path, json={"prompt": "a boat"}, headers=headers)
        assert (answer.status_code, error_code(answer)) == (403, "cross_site_request")
    assert http.post("/v1/requests/req_0/cancel", headers=headers).status_code == 403


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_the_servers_own_page_does(http: httpx.Client, site: str) -> None:
    headers = {"Sec-Fetch-Site": site}
    answer = http.post(GENERATIONS, json={"prompt": "a boat"}, headers=headers)
    assert answer.status_code == 200


def test_a_link_from_elsewhere_may_be_followed(http: httpx.Client) -> None:
    assert http.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def preflight(http: httpx.Client, origin: str, method: str = "POST") -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os,range",
    }
    return http.options(GENERATIONS, headers=headers)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
def test_a_friends_page_may_ask_without_a_key_and_call_with_one(
    friendly: httpx.Client, method: str
) -> None:
    asked = preflight(friendly, FRIEND, method)
    assert asked.status_code == 200
    assert asked.headers["Access-Control-Allow-Origin"] == FRIEND
    assert "x-stainless-os" in asked.headers["Access-Control-Allow-Headers"]  # OpenAI's client
    headers = {"Origin": FRIEND, "Sec-Fetch-Site": "cross-site"}
    assert friendly.post(GENERATIONS, json={"prompt": "a"}, headers=headers).status_code == 401
    headers["Authorization"] = f"Bearer {KEY}"
    answer = friendly.post(GENERATIONS, json={"prompt": "a boat"}, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == FRIEND
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Cross-Origin-Resource-Policy" not in answer.headers
    exposed = set(answer.headers["Access-Control-Expose-Headers"].split(", "))
    assert exposed == {
        "X-Request-Id",
        "X-Chairlift-Id",
        "X-Chairlift-Eta",
        "Retry-After",
        "Location",
        "ETag",
        "Content-Range",
    }


@pytest.mark.parametrize(
    "origin", [STRANGER, "null", FRIEND + ".evil.example", FRIEND + ":444", "http://friend.example"]
)
def test_a_strangers_page_may_not(friendly: httpx.Client, origin: str) -> None:
    asked = preflight(friendly, origin)
    assert asked.status_code == 400
    assert "Access-Control-Allow-Origin" not in asked.headers
    headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site", "Authorization": f"Bearer {KEY}"}
    answer = friendly.get("/v1/models", headers=headers)
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert friendly.post("/v1/jobs", json={"prompt": "a"}, headers=headers).status_code == 403


def test_a_method_that_is_not_served_may_not_be_called(friendly: httpx.Client) -> None:
    assert preflight(friendly, FRIEND, "PATCH").status_code == 400


def test_without_a_named_origin_nobody_is_answered_who_asks(http: httpx.Client) -> None:
    asked = preflight(http, FRIEND)
    assert asked.status_code == 405
    assert not [name for name in asked.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "", "friend.example", FRIEND + "/", FRIEND + "/page", "https://*.example"],
)
def test_an_origin_that_is_none_is_refused(origin: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"CORS origin is {origin!r}; it must")):
        Access(cors_origins=(origin,))


# ---------------------------------------------------------------------- the own name


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "127.0.0.1:1",
        "127.0.0.2",
        "[::1]",
        "[::1]:8000",
        "a.localhost",
    ],
)
def test_the_machines_own_names_are_answered(own: httpx.Client, host: str) -> None:
    assert own.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "10.0.0.1",
        "[2001:db8::1]:8000",
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
    ],
)
@pytest.mark.parametrize("path", ["/", "/v1/models", "/v1/jobs"])
def test_a_foreign_name_that_leads_here_is_not(own: httpx.Client, path: str, host: str) -> None:
    answer = own.get(path, headers={"Host": host})
    assert (answer.status_code, error_code(answer)) == (421, "misdirected_request")


def test_a_probe_that_names_no_host_is_answered(own: httpx.Client) -> None:
    with connect(own) as probe:
        probe.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        with HTTPResponse(probe) as answer:
            answer.begin()
            assert answer.status == 200


def test_the_name_it_was_bound_by_is_its_own(engine: EngineThread) -> None:
    with engine.serve(access=Access(only_host="workstation")) as http:
        assert http.get("/health", headers={"Host": "Workstation:8000"}).status_code == 200
        assert http.get("/health", headers={"Host": "elsewhere"}).status_code == 421


def test_a_server_that_is_for_everybody_has_any_name(http: httpx.Client) -> None:
    http.headers["Host"] = "pictures.example"
    try:
        assert generate(http)["data"]
    finally:
        del http.headers["Host"]
