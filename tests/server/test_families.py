"""What families bring to the HTTP API: LoRAs, and warnings of what has no effect."""

from __future__ import annotations

import base64
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from chairlift.engine.worker_config import WorkerConfig
from tests.builders import file_pixels, largest_difference, save_tiny_stable_diffusion
from tests.models.loras import save_lora
from tests.running import GENERATIONS, EngineThread


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    path = tmp_path_factory.mktemp("families")
    folder = save_tiny_stable_diffusion(path / "tiny", steps_offset=1)
    lora = save_lora(folder, path / "sketch", seed=1)
    config = WorkerConfig(model=str(folder), device="cpu", loras=[("sketch", str(lora))])
    with EngineThread(config) as engine, engine.serve() as http:
        yield http


def post(http: httpx.Client, **fields: Any) -> httpx.Response:
    return http.post(
        GENERATIONS, json={"prompt": "a boat", "seed": 1, "num_inference_steps": 2, **fields}
    )


def picture(http: httpx.Client, **fields: Any) -> bytes:
    answer = post(http, **fields)
    answer.raise_for_status()
    return base64.b64decode(answer.json()["data"][0]["b64_json"])


def test_models_lists_loras_guidance_and_memory(http: httpx.Client) -> None:
    [model] = http.get("/v1/models").json()["data"]
    assert model["loras"] == ["sketch"]
    assert model["guidance"]["options"] == ["guidance_rescale"]
    assert {part["name"] for part in model["components"]} == {"text_encoder", "unet", "vae"}
    assert model["parameters"] == sum(part["parameters"] for part in model["components"])


def test_a_request_chooses_its_loras_and_their_scales(http: httpx.Client) -> None:
    plain = picture(http)
    strong = picture(http, loras=[{"name": "sketch"}])
    weak = picture(http, loras=[{"name": "sketch", "scale": 0.3}])
    assert len({plain, strong, weak}) == 3
    assert picture(http, loras=[{"name": "sketch", "scale": 1.0}]) == strong
    assert picture(http, loras=[]) == plain


@pytest.mark.parametrize(
    ("loras", "message"),
    [
        ([{"name": "paint"}], "lora is 'paint'; it must be one of sketch"),
        ([{"name": "sketch"}] * 2, "lora 'sketch' is given twice"),
        ([{"name": "sketch", "scale": 11}], "scale of lora 'sketch' is 11.0; it must be from"),
        ([{"name": "sketch", "weight": 1}], "unknown field 'loras.0.weight'"),
        ([{"scale": 1}], "loras.0.name is missing"),
    ],
)
def test_a_wrong_lora_is_refused(http: httpx.Client, loras: Any, message: str) -> None:
    answer = post(http, loras=loras)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(message)


def test_a_negative_prompt_without_guidance_is_ignored_and_the_answer_says_so(
    http: httpx.Client,
) -> None:
    answer = post(http, negative_prompt="dull", guidance_scale=1.0).json()
    assert answer["warnings"] == [
        "negative_prompt has no effect: classifier-free guidance is off, "
        "guidance_scale is 1.0 and must be above 1.0"
    ]
    plain = post(http, guidance_scale=1.0).json()
    assert "warnings" not in plain
    # Of the pictures, not of the files, which carry the settings.
    pictures = [file_pixels(b64decode(body["data"][0]["b64_json"])) for body in (answer, plain)]
    assert largest_difference(*pictures) == 0
