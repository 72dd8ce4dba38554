"""The fields of ``txt2img``: which mean something here, and which are refused."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest

from chairlift.card import Guidance
from chairlift.engine.client import EngineClient
from chairlift.errors import InvalidRequest
from chairlift.server.compat.a1111_schema import TextToImageBody, in_their_words, split_prompt
from chairlift.server.schema import ImageGenerationBody
from tests.builders import create_card
from tests.running import EngineThread, metric, wait_until
from tests.server.compat.webui import INTERRUPT, LONG, OPTIONS, TXT2IMG, draw, files, info

# ---------------------------------------------------------------------- samplers


def test_every_sampler_that_is_listed_can_be_used(webui: httpx.Client) -> None:
    listed = webui.get("/sdapi/v1/samplers").json()
    ours = [alias for sampler in listed for alias in sampler["aliases"]]
    assert sorted(ours) == sorted(create_card().samplers)
    assert [sampler["name"] for sampler in listed] == [
        "Euler",
        "Euler a",
        "Heun",
        "DDIM",
        "PLMS",
        "DPM++ 2M",
        "UniPC",
    ]
    for sampler in listed:
        made = draw(webui, sampler_name=sampler["name"])
        assert info(made)["sampler_name"] == sampler["name"]
        for alias in sampler["aliases"]:
            assert draw(webui, sampler_name=alias)["images"] == files(webui, sampler=alias)


@pytest.mark.parametrize(
    ("name", "scheduler", "expected"),
    [
        ("DPM++ 2M", None, "dpmpp_2m_karras"),
        ("DPM++ 2M", "automatic", "dpmpp_2m_karras"),
        ("DPM++ 2M", "Automatic", "dpmpp_2m_karras"),
        ("DPM++ 2M", "Karras", "dpmpp_2m_karras"),
        ("DPM++ 2M", "karras", "dpmpp_2m_karras"),
        ("DPM++ 2M Karras", None, "dpmpp_2m_karras"),
        ("DPM++ 2M Karras", "automatic", "dpmpp_2m_karras"),
        ("DPM++ 2M", "uniform", "dpmpp_2m"),
        ("Euler a", "Automatic", "euler_ancestral"),
        ("Euler", "uniform", "euler"),
        ("euler A", "", "euler_ancestral"),
        ("", "", "euler"),
        (None, "uniform", "euler"),
        ("dpmpp_2m", "automatic", "dpmpp_2m"),
    ],
)
def test_a_sampler_and_a_scheduler_are_a_sampler_of_ours(
    name: str | None, scheduler: str | None, expected: str
) -> None:
    body = TextToImageBody(sampler_name=name, scheduler=scheduler).to_body(create_card())
    assert body.sampler == expected


def test_schedulers_that_are_listed_can_be_used(webui: httpx.Client) -> None:
    listed = webui.get("/sdapi/v1/schedulers").json()
    assert [(entry["name"], entry["label"]) for entry in listed] == [
        ("automatic", "Automatic"),
        ("uniform", "Uniform"),
        ("karras", "Karras"),
    ]
    for entry in listed:
        assert draw(webui, sampler_name="DPM++ 2M", scheduler=entry["name"])["images"]


# ---------------------------------------------------------------------- guidance and LoRAs


def guided(**fields: Any) -> ImageGenerationBody:
    card = replace(
        create_card(), guidance=Guidance(cfg_field="true_cfg_scale", embedded=True, cfg_offset=0.0)
    )
    return TextToImageBody(**fields).to_body(card)


def test_cfg_is_the_field_that_the_model_has_for_it() -> None:
    body = guided(cfg_scale=4, distilled_cfg_scale=3.5)
    assert (body.true_cfg_scale, body.guidance_scale) == (4, 3.5)
    body = guided(cfg_scale=1)
    assert (body.true_cfg_scale, body.guidance_scale) == (1, None)


def test_cfg_is_meant_in_the_usual_sense() -> None:
    card = replace(create_card(), guidance=Guidance(cfg_offset=1.0))
    body = TextToImageBody(cfg_scale=5).to_body(card)
    assert body.guidance_scale == 4
    assert body.to_request(card, id="a").cfg_scale == 5


@pytest.mark.parametrize(
    ("prompt", "rest", "loras"),
    [
        ("a boat <lora:sketch:0.8>", "a boat", [("sketch", 0.8)]),
        ("<lora:sketch>a boat", "a boat", [("sketch", 1.0)]),
        ("<lora:a:1> a <lyco:b c:-0.5:-0.5> boat", "a  boat", [("a", 1.0), ("b c", -0.5)]),
        (" a (boat:1.2) < sea ", " a (boat:1.2) < sea ", []),
        ("", "", []),
    ],
)
def test_tags_in_a_prompt_are_loras(prompt: str, rest: str, loras: list[tuple[str, float]]) -> None:
    text, found = split_prompt(prompt)
    assert text == rest
    assert [(lora.name, lora.scale) for lora in found] == loras


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("<hypernet:x:1>", 'prompt has "<hypernet:x:1>"; of such tags, only <lora:name:scale>'),
        ("<lora:a:strong>", "a LoRA's scale must be a number"),
        ("<lora:a:te=1:unet=0.5>", "a LoRA's scale must be a number"),
        ("<lora:a:1:0.5>", "a LoRA has one scale here, for all networks"),
        ("<lora:a:1:1:64>", "a LoRA has one scale here, for all networks"),
    ],
)
def test_a_tag_that_cannot_be_served_is_refused(prompt: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(message)) as refused:
        split_prompt(prompt)
    assert refused.value.param == "prompt"


def test_many_tags_are_read_at_once() -> None:
    prompt = "<lora:" * 150_000
    assert split_prompt(prompt) == (prompt, [])


def test_loras_of_the_model_are_listed_and_others_refused(webui: httpx.Client) -> None:
    assert webui.get("/sdapi/v1/loras").json() == []
    refused = webui.post(TXT2IMG, json={"prompt": "a boat <lora:sketch:0.8>"})
    assert refused.json()["detail"] == "lora is 'sketch'; there are none"
    assert refused.json()["error"]["param"] == "prompt"


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("enable_hr", True, "enable_hr is true; it must be false or null: there is no second pass"),
        ("restore_faces", True, "restore_faces is true; it must be false or null: there is no fa"),
        ("tiling", True, "tiling is true; it must be false or null"),
        ("styles", ["photo"], 'styles is ["photo"]; it must be [] or null'),
        ("subseed_strength", 0.1, "subseed_strength is 0.1; it must be 0 or null"),
        ("seed_resize_from_w", 512, "seed_resize_from_w is 512; it must be -1 or 0 or null"),
        ("refiner_checkpoint", "xl", 'refiner_checkpoint is "xl"; it must be'),
        ("script_name", "x/y/z plot", 'script_name is "x/y/z plot"; it must be "" or null'),
        ("alwayson_scripts", {"ControlNet": {}}, 'alwayson_scripts is {"ControlNet": {}}; it must'),
        ("s_churn", 1, "s_churn is 1; it must be 0 or null: samplers are served without churn"),
        ("infotext", "Steps: 1", 'infotext is "Steps: 1"; it must be'),
        ("sampler_name", "LMS", 'sampler_name is "LMS"; it must be one of Euler, Euler a, Heun'),
        ("scheduler", "Karras", 'scheduler is "karras"; with Euler it must be one of automatic, u'),
        ("steps", 0, "steps is 0; it must be from 1 to 200"),
        ("steps", "many", 'steps is "many"; input should be a valid integer'),
        ("cfg_scale", 101, "cfg_scale is 101.0; it must be from 0.0 to 100.0"),
        ("seed", -2, "seed is -2; it must be from 0 to"),
        ("batch_size", 0, "batch_size is 0; it must be from 1 on"),
        ("n_iter", 11, "batch_size times n_iter is 11; it must be from 1 to 10"),
        ("prompt", "x" * 32_001, "prompt has 32001 characters"),
        (
            "override_settings",
            {"CLIP_stop_at_last_layers": 2},
            "CLIP_stop_at_last_layers is 2; it is 1 here and can't be changed",
        ),
        ("override_settings", {"filter_nsfw": True}, 'there is no option "filter_nsfw" here'),
    ],
)
def test_a_value_that_cannot_be_served_is_refused(
    webui: httpx.Client, field: str, value: Any, message: str
) -> None:
    refused = webui.post(TXT2IMG, json={"prompt": "a boat"} | {field: value})
    assert refused.status_code == 422
    answer = refused.json()
    assert answer["detail"].startswith(message)
    assert answer["errors"] == answer["detail"] == answer["error"]["message"]
    assert answer["body"] == ""
    assert answer["error"]["type"] == "invalid_request_error"
    if field != "override_settings":
        assert answer["error"]["param"] == field


@pytest.mark.parametrize(
    ("sampler", "eta", "served"), [("Euler a", 0.5, "1.0"), ("DDIM", 1.0, "0.0")]
)
def test_an_eta_that_would_matter_is_refused(
    webui: httpx.Client, sampler: str, eta: float, served: str
) -> None:
    refused = webui.post(TXT2IMG, json={"sampler_name": sampler, "eta": eta})
    assert refused.json()["detail"] == f"eta is {eta}; {sampler} is served with {served}"


def test_a_size_that_cannot_be_is_refused(webui: httpx.Client) -> None:
    refused = webui.post(TXT2IMG, json={"prompt": "a boat", "width": 100})
    assert refused.json()["detail"].startswith("size is 100x64; each side must be a multiple of 8")


def test_another_checkpoint_is_not_found(webui: httpx.Client) -> None:
    for path, body in (
        (TXT2IMG, {"override_settings": {"sd_model_checkpoint": "v1-5"}}),
        (OPTIONS, {"sd_model_checkpoint": "v1-5"}),
    ):
        refused = webui.post(path, json=body)
        assert refused.status_code == 404
        assert refused.json()["detail"] == (
            "sd_model_checkpoint is \"v1-5\"; the model that is served is 'fake'"
        )


@pytest.mark.parametrize("content", [b"", b"[", b"[]", b"7", b'{"prompt": "\\ud800"}'])
def test_a_body_that_is_none_is_refused(webui: httpx.Client, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    refused = webui.post(TXT2IMG, content=content, headers=headers)
    assert refused.status_code == 422
    assert refused.json()["detail"] == refused.json()["error"]["message"]


def test_a_full_queue_says_when_to_come_again(engine: EngineThread, client: EngineClient) -> None:
    with engine.serve(max_queue=10, compat="a1111") as http, ThreadPoolExecutor(1) as pool:
        riding = pool.submit(draw, http, **LONG)
        wait_until(lambda: client.pending_rows == 10)
        refused = http.post(TXT2IMG, json={"prompt": "a boat"})
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["detail"] == refused.json()["error"]["message"]
        assert metric(http, 'chairlift_rejected_total{reason="queue_full"}') == 1
        http.post(INTERRUPT)
        riding.result()


def test_an_error_keeps_its_name_where_the_value_is_not_the_one_that_came() -> None:
    card = replace(create_card(), guidance=Guidance(cfg_offset=1.0))
    body = TextToImageBody(cfg_scale=0.5).to_body(card)
    with pytest.raises(InvalidRequest) as refused:
        body.to_request(card, id="a")
    error = in_their_words(refused.value, card)
    assert error.message == "guidance_scale is -0.5; it must be from 0.0 to 100.0"
