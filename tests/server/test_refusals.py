"""What is refused, and how it is said: OpenAI's error object, with the field, the value and the
bound.
"""

from __future__ import annotations

import json
import select
import socket
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any

import httpx
import pytest

from chairlift.engine.client import EngineClient
from chairlift.server.limits import Limits
from tests.builders import create_card
from tests.running import GENERATIONS, connect, generate

SAMPLERS = ", ".join(create_card().samplers)
HUGE = 100 * 2**20
MAX_BODY_BYTES = Limits().max_body_bytes


@dataclass(frozen=True)
class Refusal:
    """A body, and what is said about it."""

    body: Any
    """Bytes are sent as they are, anything else as JSON, which then may have NaN in it."""
    param: str | None
    message: str
    status: int = 400
    code: str = "invalid_value"

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def about(field: str, value: Any, message: str, **other: Any) -> Refusal:
    """The refusal of one field beside a good prompt."""
    return Refusal({"prompt": "a boat"} | {field: value}, field, message, **other)


def with_stream(message: str, **fields: Any) -> Refusal:
    """The refusal of a stream, for the first of some fields."""
    return Refusal({"prompt": "a boat", "stream": True} | fields, next(iter(fields)), message)


OUT_OF_BOUNDS = [
    about("n", 0, "n is 0; it must be from 1 to 10"),
    about("n", 11, "n is 11; it must be from 1 to 10"),
    about("num_frames", 5, "num_frames is 5; it must be 1: fake makes pictures"),
    about("n", -1, "n is -1; it must be from 1 to 10"),
    about("num_inference_steps", 0, "num_inference_steps is 0; it must be from 1 to 200"),
    about("num_inference_steps", 10_000, "num_inference_steps is 10000; it must be from 1 to 200"),
    about(
        "guidance_scale",
        float("nan"),
        "guidance_scale is nan; it must be a finite number from 0.0 to 100.0",
    ),
    about(
        "guidance_scale",
        float("inf"),
        "guidance_scale is inf; it must be a finite number from 0.0 to 100.0",
    ),
    about(
        "guidance_scale",
        float("-inf"),
        "guidance_scale is -inf; it must be a finite number from 0.0 to 100.0",
    ),
    about("guidance_scale", 1e9, "guidance_scale is 1000000000.0; it must be from 0.0 to 100.0"),
    about("guidance_scale", -1, "guidance_scale is -1.0; it must be from 0.0 to 100.0"),
    about(
        "seed",
        2**70,
        f"seed is {2**70}; it must be from 0 to {2**63 - 1}, or -1 for a random one",
    ),
    about("seed", -2, f"seed is -2; it must be from 0 to {2**63 - 1}, or -1 for a random one"),
    about("output_compression", 101, "output_compression is 101; it must be from 0 to 100"),
    about("output_compression", -1, "output_compression is -1; it must be from 0 to 100"),
    about("prompt", "x" * 32_001, "prompt has 32001 characters; at most 32000 are allowed"),
    about(
        "negative_prompt",
        "x" * 32_001,
        "negative_prompt has 32001 characters; at most 32000 are allowed",
    ),
    Refusal(
        {"prompt": "a boat", "n": 2, "seed": 2**63 - 1},
        "seed",
        f"seed is {2**63 - 1}; it must be from 0 to {2**63 - 2}, or -1 for a random one",
    ),
]

SIZES = [
    *(
        about(
            "size",
            size,
            f"size is {size!r}; it must be width x height in pixels, like 128x128, or auto",
        )
        for size in (
            "abc",
            "",
            "64",
            "64x",
            "x64",
            "64x64x64",
            "-64x64",
            "6_4x64",
            "٦٤x64",
            "64 x64",
        )
    ),
    about(
        "size",
        "9" * 1000 + "x64",
        f"size is {'9' * 40!r}; it must be width x height in pixels, like 128x128, or auto",
    ),
    about(
        "size",
        "65536x65536",
        "size is 65536x65536, 4294967296 pixels; at most 262144 are allowed",
    ),
    about("size", "520x512", "size is 520x512, 266240 pixels; at most 262144 are allowed"),
    about(
        "size", "100x64", "size is 100x64; each side must be a multiple of 8, the nearest is 96x64"
    ),
    about("size", "0x64", "size is 0x64; each side must be a multiple of 8, the nearest is 8x64"),
]

GUIDANCE = [
    about(
        "true_cfg_scale",
        4.0,
        "true_cfg_scale is 4.0; the classifier-free guidance of fake is guidance_scale",
    ),
    about("guidance_rescale", 0.7, "guidance_rescale is 0.7; fake doesn't take it"),
    about("cfg_truncation", 0.5, "cfg_truncation is 0.5; fake doesn't take it"),
    about("cfg_normalization", 1.0, "cfg_normalization is 1.0; fake doesn't take it"),
    about("loras", [{"name": "sketch"}], "lora is 'sketch'; there are none"),
    about("priority", 11, "priority is 11; it must be from -10 to 10"),
    about("priority", 1.5, "priority is 1.5; input should be a valid integer"),
    about("deadline_ms", 0, "deadline_ms is 0.0; it must be from 1.0 to 86400000.0"),
    about(
        "deadline_ms",
        float("nan"),
        "deadline_ms is nan; it must be a finite number from 1.0 to 86400000.0",
    ),
]

CHOICES = [
    about("sampler", "magic", f"sampler is 'magic'; it must be one of {SAMPLERS}"),
    about(
        "model",
        "dall-e-3",
        "model is 'dall-e-3'; the model that is served is 'fake'",
        status=404,
        code="model_not_found",
    ),
    about("response_format", "url", "response_format is \"url\"; input should be 'b64_json'"),
    about("output_format", "gif", "output_format is 'gif'; it must be one of png, jpeg, webp"),
    about("output_format", "mp4", "output_format is 'mp4'; it must be one of png, jpeg, webp"),
    about("partial_images", 1, "partial_images is 1; it needs stream: true"),
    about("preview_every", 2, "preview_every is 2; it needs stream: true"),
    with_stream("partial_images is 4; it must be from 0 to 3", partial_images=4),
    with_stream("preview_every is 0; it must be from 1 to 200", preview_every=0),
    with_stream(
        "preview_every is 2 and partial_images is 1; give one of them",
        preview_every=2,
        partial_images=1,
    ),
]

TYPES = [
    about("prompt", None, "prompt is null; input should be a valid string"),
    about("prompt", ["a"], 'prompt is ["a"]; input should be a valid string'),
    about("n", "1", 'n is "1"; input should be a valid integer'),
    about("n", 1.0, "n is 1.0; input should be a valid integer"),
    about("n", True, "n is true; input should be a valid integer"),
    about("n", float("nan"), "n is NaN; input should be a valid integer"),
    about("size", 64, "size is 64; input should be a valid string"),
    about("guidance_scale", "5", 'guidance_scale is "5"; input should be a valid number'),
    about("guidance_scale", 10**400, f"guidance_scale is {10**79}; input should be a valid number"),
    about("seed", "1", 'seed is "1"; input should be a valid integer'),
    about("seed", 1.5, "seed is 1.5; input should be a valid integer"),
    about("stream", "yes", 'stream is "yes"; input should be a valid boolean'),
    about("user", {"id": 1}, 'user is {"id": 1}; input should be a valid string'),
    Refusal({}, "prompt", "prompt is missing"),
    about("loras", "sketch", 'loras is "sketch"; input should be a valid list'),
    about("", 8, "unknown field ''"),
    about("frames", 8, "unknown field 'frames'"),
    about("x" * 1000, 8, f"unknown field {'x' * 80!r}"),
]

SURROGATES = [
    about(
        "prompt",
        "a boat \ud800",
        "prompt has a lone surrogate at character 7; it must be valid Unicode",
    ),
    about(
        "negative_prompt",
        "\udfff",
        "negative_prompt has a lone surrogate at character 0; it must be valid Unicode",
    ),
    about("user", "\ud800", "user has a lone surrogate at character 0; it must be valid Unicode"),
    about("sampler", "\ud800", f"sampler is '\\ud800'; it must be one of {SAMPLERS}"),
    about(
        "size",
        "\ud800",
        "size is '\\ud800'; it must be width x height in pixels, like 128x128, or auto",
    ),
    about(
        "model",
        "\ud800",
        "model is '\\ud800'; the model that is served is 'fake'",
        status=404,
        code="model_not_found",
    ),
    Refusal(
        {"prompt": "a boat", "\ud800": 1},
        None,
        "a field's name has a lone surrogate; it must be valid Unicode",
    ),
]

NOT_AN_OBJECT = "the body must be a JSON object, sent as application/json"
BODIES = [
    Refusal(b"", None, NOT_AN_OBJECT),
    Refusal([1], None, NOT_AN_OBJECT),
    Refusal("a boat", None, NOT_AN_OBJECT),
    Refusal(None, None, NOT_AN_OBJECT),
    Refusal(b"a boat", None, "the body is not valid JSON: Expecting value"),
    Refusal(
        b'{"prompt": "a',
        None,
        "the body is not valid JSON: Unterminated string starting at",
    ),
    Refusal(
        b'{"prompt": "\xff"}',
        None,
        "the body can't be read: 'utf-8' codec can't decode byte 0xff in position 12: "
        "invalid start byte",
    ),
]

REFUSALS = [*OUT_OF_BOUNDS, *SIZES, *GUIDANCE, *CHOICES, *TYPES, *SURROGATES, *BODIES]


def post(http: httpx.Client, content: bytes) -> httpx.Response:
    return http.post(GENERATIONS, content=content, headers={"Content-Type": "application/json"})


def error(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["Content-Type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert body.keys() == {"error"}
    fields: dict[str, Any] = body["error"]
    assert fields.keys() == {"message", "type", "param", "code"}
    return fields


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.message[:60])
def test_a_refusal_names_the_field_the_value_and_the_bound(
    http: httpx.Client, refusal: Refusal
) -> None:
    answer = post(http, refusal.content)
    assert error(answer) == {
        "message": refusal.message,
        "type": "invalid_request_error",
        "param": refusal.param and refusal.param[:80],
        "code": refusal.code,
    }
    assert answer.status_code == refusal.status


def test_a_server_that_has_refused_everything_still_answers(
    http: httpx.Client, client: EngineClient
) -> None:
    before = generate(http, seed=1)
    for refusal in REFUSALS:
        assert 400 <= post(http, refusal.content).status_code < 500
    assert client.pending_rows == 0
    assert generate(http, seed=1)["data"] == before["data"]


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain"}], ids=str)
def test_a_body_that_is_not_sent_as_json_is_refused(
    http: httpx.Client, headers: dict[str, str]
) -> None:
    answer = http.post(GENERATIONS, content=b'{"prompt": "a boat"}', headers=headers)
    assert answer.status_code == 415
    assert error(answer)["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "content",
    [b"[" * 200_000, b'{"seed": ' + b"9" * 5000 + b"}"],
    ids=["deep", "many digits"],
)
def test_json_that_python_can_not_read_is_refused(http: httpx.Client, content: bytes) -> None:
    answer = post(http, content)
    assert answer.status_code == 400
    assert error(answer)["message"].startswith("the body can't be read: ")
    assert error(answer)["code"] == "invalid_value"


def test_refusals_are_counted_by_their_reason(http: httpx.Client) -> None:
    def counts() -> dict[str, float]:
        lines = http.get("/metrics").text.splitlines()
        samples = [
            line.rpartition(" ") for line in lines if line.startswith("chairlift_rejected_t")
        ]
        return {name: float(value) for name, _, value in samples}

    for content in (
        b'{"prompt": "a", "n": 0}',
        b'{"prompt": 1}',
        b"[",
        b'{"prompt": "a", "model": "b"}',
    ):
        post(http, content)
    before = counts()
    for content in (b'{"prompt": "a", "n": 0}', b'{"prompt": 1}', b"["):
        post(http, content)
    assert counts() == before | {
        'chairlift_rejected_total{reason="invalid_value"}': before[
            'chairlift_rejected_total{reason="invalid_value"}'
        ]
        + 3
    }


# ---------------------------------------------------------------------- bodies without end

TOO_LARGE = {
    "message": f"the body is larger than {MAX_BODY_BYTES} bytes",
    "type": "invalid_request_error",
    "param": None,
    "code": "payload_too_large",
}
HEAD = f"POST {GENERATIONS} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"


def read_answer(caller: socket.socket) -> tuple[int, Any]:
    with HTTPResponse(caller) as answer:
        answer.begin()
        return answer.status, json.load(answer)


def test_a_body_is_read_up_to_the_bound_and_no_further(http: httpx.Client) -> None:
    frame = len(b'{"prompt": ""}')
    longest = post(http, b'{"prompt": "' + b"x" * (MAX_BODY_BYTES - frame) + b'"}')
    longer = post(http, b'{"prompt": "' + b"x" * (MAX_BODY_BYTES - frame + 1) + b'"}')
    assert error(longest)["param"] == "prompt"
    assert longer.status_code == 413
    assert error(longer) == TOO_LARGE


def test_a_body_that_says_it_is_huge_is_refused_before_it_is_sent(http: httpx.Client) -> None:
    with connect(http) as caller:
        caller.sendall(f"{HEAD}Content-Length: {HUGE}\r\n\r\n".encode())
        assert read_answer(caller) == (413, {"error": TOO_LARGE})
    assert generate(http)["data"]


def test_a_huge_body_without_a_length_is_refused_before_it_ends(http: httpx.Client) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    sent = 0
    with connect(http) as caller:
        caller.sendall(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        while sent < HUGE and not select.select([caller], [], [], 0)[0]:
            caller.sendall(chunk)
            sent += 0x10000
        assert read_answer(caller) == (413, {"error": TOO_LARGE})
    assert sent < HUGE
    assert generate(http)["data"]


def test_a_caller_who_goes_away_in_the_middle_of_a_body_does_no_harm(
    http: httpx.Client, client: EngineClient
) -> None:
    with connect(http) as caller:
        caller.sendall(f'{HEAD}Content-Length: 1000\r\n\r\n{{"prompt": "a boat"}}'.encode())
    assert generate(http)["data"]
    assert client.pending_rows == 0


# ---------------------------------------------------------------------- paths and methods


@pytest.mark.parametrize("path", ["/nothing", "/v1/images/generations/", "/v1/%ff", "/%2e%2e/etc"])
def test_an_unknown_path_is_an_error_object(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 404
    fields = error(answer)
    assert fields["message"].endswith(": Not Found")
    assert (fields["type"], fields["code"]) == ("invalid_request_error", "not_found")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", GENERATIONS), ("POST", "/v1/models"), ("DELETE", "/health")]
)
def test_a_wrong_method_is_an_error_object(http: httpx.Client, method: str, path: str) -> None:
    answer = http.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["Allow"]
    assert error(answer) == {
        "message": f"{method} {path}: Method Not Allowed",
        "type": "invalid_request_error",
        "param": None,
        "code": "method_not_allowed",
    }
