"""What tests of AUTOMATIC1111's interface send, and how they read the answers."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.running import generate

TXT2IMG = "/sdapi/v1/txt2img"
PROGRESS = "/sdapi/v1/progress"
INTERRUPT = "/sdapi/v1/interrupt"
OPTIONS = "/sdapi/v1/options"

LONG: dict[str, Any] = {
    "prompt": "a long ride",
    "batch_size": 2,
    "n_iter": 5,
    "width": 512,
    "height": 512,
    "steps": 200,
    "sampler_name": "Heun",
    "seed": 1,
}
"""What keeps the fake model busy for many seconds."""


def draw(webui: httpx.Client, **fields: Any) -> dict[str, Any]:
    """The answer to a small request."""
    answer = webui.post(TXT2IMG, json={"prompt": "a boat", "seed": 1} | fields)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def info(answer: dict[str, Any]) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(answer["info"])
    return parsed


def files(http: httpx.Client, **fields: Any) -> list[str]:
    """The pictures of the server's own interface."""
    return [image["b64_json"] for image in generate(http, **({"seed": 1} | fields))["data"]]


def state(webui: httpx.Client) -> dict[str, Any]:
    answer: dict[str, Any] = webui.get(PROGRESS).json()
    return answer
