"""API keys and TLS: who may come in."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from chairlift.engine.client import EngineClient
from chairlift.engine.ride import Ride
from chairlift.errors import ConfigurationError
from chairlift.server.access import Access, read_keys, split_keys
from tests.running import (
    GENERATIONS,
    PATIENCE_SECONDS,
    EngineThread,
    generate,
    metric,
    wait_until,
)

KEY = "schlüssel-1234"
PATHS = ["/v1/models", "/ready", "/version", "/metrics", "/v1/lift", "/openapi.json", "/nothing"]


@pytest.fixture(scope="module")
def locked(engine: EngineThread) -> Iterator[httpx.Client]:
    """Without a key of its own."""
    with engine.serve(api_key=KEY) as http:
        yield http


def bearer(key: str) -> dict[bytes, bytes]:
    return {b"Authorization": b"Bearer " + key.encode()}


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
    headers = {b"Authorization": authorization}
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


# ---------------------------------------------------------------------- several keys


def test_any_of_several_keys_opens(engine: EngineThread) -> None:
    keys = ("first", "second", KEY)
    with engine.serve(access=Access(keys=keys)) as locked:
        statuses = [
            locked.get("/v1/models", headers=bearer(key)).status_code
            for key in (*keys, "third", "first,second", "firs", "firstsecond")
        ]
    assert statuses == [200] * 3 + [401] * 4


@pytest.fixture
def callers(client: EngineClient) -> Iterator[list[str]]:
    """Those of the requests that end meanwhile."""
    ended: list[str] = []

    def listen(ride: Ride) -> None:
        ended.append(ride.request.caller)

    client.on_end.append(listen)
    yield ended
    client.on_end.remove(listen)


def test_who_has_no_name_is_called_by_the_number_of_the_key(
    engine: EngineThread, callers: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    access = Access(keys=("first-secret", "second-secret"))
    body = {"prompt": "a boat"}
    with caplog.at_level(0), engine.serve(access=access, compat="a1111") as locked:
        locked.headers.update(bearer("second-secret"))
        for path in (GENERATIONS, "/sdapi/v1/txt2img"):
            locked.post(path, json=body).raise_for_status()
        job = locked.post("/v1/jobs", json=body).raise_for_status().json()
        wait_until(lambda: locked.get(f"/v1/jobs/{job['id']}").json()["status"] == "succeeded")
        shown = locked.get("/v1/jobs").text + locked.get("/metrics").text
        locked.headers.update(bearer("first-secret"))
        locked.post(GENERATIONS, json=body).raise_for_status()
        locked.post(GENERATIONS, json=body | {"user": "somebody"}).raise_for_status()
    assert callers == ["key 2"] * 3 + ["key 1", "somebody"]
    assert "secret" not in shown + caplog.text + repr(access)


def test_without_keys_callers_have_no_name(http: httpx.Client, callers: list[str]) -> None:
    http.post(GENERATIONS, json={"prompt": "a boat"}, headers=bearer("whatever"))
    assert callers == [""]


def test_the_metrics_can_be_opened_and_nothing_else(engine: EngineThread) -> None:
    with engine.serve(access=Access(keys=(KEY,), open_metrics=True)) as locked:
        assert locked.get("/metrics").status_code == 200
        for path in PATHS:
            if path != "/metrics":
                assert_is_locked(locked.get(path))
        assert_is_locked(locked.get("/metrics/"))


# ---------------------------------------------------------------------- where keys come from


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("one", ("one",)),
        ("one,two", ("one", "two")),
        (" one ,\ttwo\nthree,", ("one", "two", "three")),
    ],
)
def test_keys_stand_between_commas_and_spaces(text: str, keys: tuple[str, ...]) -> None:
    assert split_keys([text, "last"]) == (*keys, "last")


@pytest.mark.parametrize("text", ["", " ", ",", " , "])
def test_a_text_without_a_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="the key is empty"):
        split_keys(["one", text])


def key_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    file = folder / "keys.txt"
    file.write_bytes(content)
    file.chmod(mode)
    return file


def test_a_file_has_one_key_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = f"# of the team\n\n  one\r\n{KEY}\n#two\nthree,four\n".encode()
    assert read_keys(key_file(tmp_path, content)) == ("one", KEY, "three,four")
    assert caplog.text == ""


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    file = key_file(tmp_path, b"a-secret", mode)
    assert read_keys(file) == ("a-secret",)
    assert [record.getMessage() for record in caplog.records] == [
        f"others can read the API keys in {file}; chmod 600 prevents it"
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "keys.txt has none"),
        (b"# nothing\n\n", "keys.txt has none"),
        (b"\xff", "keys.txt can't be read: it isn't UTF-8"),
        (b"one\na secret\n", "line 2 of .*keys.txt has a space; a key has none"),
    ],
)
def test_a_file_without_good_keys_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as refused:
        read_keys(key_file(tmp_path, content))
    assert "secret" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing can't be read: No such file"):
        read_keys(tmp_path / "nothing")


# ---------------------------------------------------------------------- the command line


def serve_fake(*options: str, variable: str | None = None) -> subprocess.Popen[str]:
    surroundings = {"NO_COLOR": "1", "COLUMNS": "200"}
    if variable is not None:
        surroundings["CHAIRLIFT_API_KEY"] = variable
    return subprocess.Popen(
        [sys.executable, "-m", "chairlift", "serve", "fake", "--port", "0", *options],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | surroundings,
    )


def complaint(*options: str, variable: str | None = None) -> str:
    """What is said by a server that doesn't start."""
    with serve_fake(*options, variable=variable) as process:
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 2, said
    assert "Traceback" not in said
    return " ".join(said.replace("│", " ").split())


@contextmanager
def served(*options: str, variable: str | None = None) -> Iterator[tuple[str, str]]:
    """The address of a server, and the lines before it."""
    with serve_fake(*options, variable=variable) as process:
        assert process.stderr is not None
        lines = []
        try:
            for line in process.stderr:
                lines.append(line)
                if address := re.search(r"is served at (\S+)", line):
                    break
            assert address, lines
            yield address[1], "".join(lines[:-1])
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_SECONDS)


@pytest.mark.parametrize("variable", ["", " ", ","])
def test_a_variable_without_a_key_does_not_open_the_door(variable: str) -> None:
    said = complaint(variable=variable)
    assert "CHAIRLIFT_API_KEY" in said
    assert "the key is empty" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--api-key-file", "/nowhere/keys"], "/nowhere/keys can't be read: No such file"),
        (["--cors-origin", "*"], "chairlift: CORS origin is '*'; it must be like https://"),
        (["--ssl-keyfile", "key.pem"], "chairlift: --ssl-keyfile needs --ssl-certfile"),
        (["--ssl-certfile", "/nowhere/cert"], "/nowhere/cert can't be read: No such file"),
        (["--ssl-certfile", __file__], "test_access.py are no TLS certificate with its key"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_of_access_is_one_line(options: list[str], message: str) -> None:
    assert message in complaint(*options)


def test_keys_come_from_the_variable_and_a_file_together(tmp_path: Path) -> None:
    file = key_file(tmp_path, b"filed")
    options = ["--api-key-file", str(file)]
    with served(*options, variable="one,two three") as (address, before):
        url = f"{address}/v1/models"
        statuses = {
            key: httpx.get(url, headers=bearer(key)).status_code
            for key in ("one", "two", "three", "filed", "four", "one,two")
        }
        # With a key, it may be reached by any name.
        foreign = httpx.get(f"{address}/health", headers={"Host": "pictures.example"})
    known = [key for key, status in statuses.items() if status == 200]
    assert known == ["one", "two", "three", "filed"]
    assert foreign.status_code == 200
    assert before == ""


def test_without_a_key_it_is_for_this_machine_or_warned_of() -> None:
    foreign = {"Host": "evil.example"}
    with served() as (address, before):
        assert before == ""
        assert httpx.get(f"{address}/health", headers=foreign).status_code == 421
    with served("--host", "0.0.0.0") as (address, before):
        address = address.replace("0.0.0.0", "127.0.0.1")
        assert "WARNING chairlift.server.serve: listening on 0.0.0.0 without an API key" in before
        assert before.count("\n") == 1
        answer = httpx.get(f"{address}/health", headers=foreign)
        assert answer.status_code == 200
        assert "Server" not in answer.headers


def test_a_key_makes_any_address_safe_to_listen_on() -> None:
    with served("--host", "0.0.0.0", "--api-key", "one") as (_, before):
        assert before == ""


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl for a certificate")
def test_a_certificate_makes_it_https(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    make += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    said = complaint("--ssl-certfile", str(certificate))
    assert "cert.pem are no TLS certificate with its key" in said
    options = ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)]
    with served(*options) as (address, _):
        assert address.startswith("https://127.0.0.1:")
        trusted = ssl.create_default_context(cafile=certificate)
        with httpx.Client(base_url=address, verify=trusted) as http:
            assert generate(http)["data"]
