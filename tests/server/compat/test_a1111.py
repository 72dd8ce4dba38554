"""AUTOMATIC1111's clients: what they send is what this engine makes."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from chairlift.engine.client import EngineClient
from chairlift.metadata import PictureSettings
from tests.running import GENERATIONS, EngineThread, connect, send_post, wait_until
from tests.running import LONG as OTHERS
from tests.server.compat.webui import (
    INTERRUPT,
    LONG,
    OPTIONS,
    PROGRESS,
    TXT2IMG,
    draw,
    files,
    info,
    state,
)

LISTS = ["latent-upscale-modes", "sd-vae", "hypernetworks", "face-restorers", "prompt-styles"]
GETS = ["samplers", "schedulers", "sd-models", "loras", "options", "scripts", "embeddings"]
GETS += ["upscalers", "progress", *LISTS]

EVERYTHING: dict[str, Any] = {
    "prompt": "a boat",
    "negative_prompt": "",
    "styles": [],
    "seed": 7,
    "subseed": -1,
    "subseed_strength": 0.0,
    "seed_resize_from_h": 0,
    "seed_resize_from_w": 0,
    "sampler_name": "Euler a",
    "sampler_index": "Euler a",
    "scheduler": "automatic",
    "batch_size": 1,
    "n_iter": 1,
    "steps": 8,
    "cfg_scale": 7.0,
    "width": 64,
    "height": 72,
    "restore_faces": False,
    "tiling": False,
    "do_not_save_samples": False,
    "do_not_save_grid": False,
    "eta": 1.0,
    "denoising_strength": 0.7,
    "s_churn": 0,
    "s_tmax": 0,
    "s_tmin": 0,
    "s_noise": 1,
    "override_settings": {},
    "override_settings_restore_afterwards": True,
    "enable_hr": False,
    "firstphase_width": 0,
    "firstphase_height": 0,
    "hr_scale": 2,
    "hr_upscaler": "Latent",
    "hr_second_pass_steps": 0,
    "hr_resize_x": 0,
    "hr_resize_y": 0,
    "hr_checkpoint_name": None,
    "hr_sampler_name": None,
    "hr_scheduler": None,
    "hr_prompt": "",
    "hr_negative_prompt": "",
    "refiner_checkpoint": None,
    "refiner_switch_at": None,
    "script_name": None,
    "script_args": [],
    "send_images": True,
    "save_images": True,
    "alwayson_scripts": {},
}
"""What a client sends that knows all fields."""


# ---------------------------------------------------------------------- off by default


@pytest.mark.parametrize("path", [*(f"/sdapi/v1/{name}" for name in GETS), "/internal/ping"])
def test_it_is_off_unless_asked_for(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 404
    assert http.post(TXT2IMG, json={"prompt": "a boat"}).status_code == 404


def test_a_key_is_needed_here_too(engine: EngineThread) -> None:
    with engine.serve(compat="a1111", api_key="secret") as http:
        for name in GETS:
            assert http.get(f"/sdapi/v1/{name}").status_code == 401
        assert http.get("/internal/ping").status_code == 401
        http.headers["Authorization"] = "Bearer secret"
        assert draw(http)["images"]


def test_the_key_may_be_a_password_here_and_only_here(engine: EngineThread) -> None:
    with engine.serve(compat="a1111", api_key="secret") as http:
        for path in ("/internal/ping", "/sdapi/v1/options"):
            assert http.get(path, auth=("anybody", "secret")).status_code == 200
            assert http.get(path, auth=("secret", "")).status_code == 401
            for wrong in ("secret", "c2VjcmV0", "YTpzZWNyZXQ=!"):
                answer = http.get(path, headers={"Authorization": f"Basic {wrong}"})
                assert answer.status_code == 401
                assert answer.headers["WWW-Authenticate"] == "Bearer"  # No page asks for it.
        assert http.get("/v1/models", auth=("anybody", "secret")).status_code == 401


# ---------------------------------------------------------------------- pictures


def test_a_client_that_sends_everything_gets_the_same_picture(webui: httpx.Client) -> None:
    answer = draw(webui, **EVERYTHING)
    expected = files(
        webui,
        seed=7,
        size="64x72",
        num_inference_steps=8,
        guidance_scale=7.0,
        sampler="euler_ancestral",
    )
    assert answer["images"] == expected


def test_what_is_left_out_is_the_models_default(webui: httpx.Client) -> None:
    assert draw(webui)["images"] == files(webui)
    assert draw(webui, **dict.fromkeys(EVERYTHING))["images"]
    fields = dict.fromkeys(set(EVERYTHING) - {"prompt", "seed"})
    assert draw(webui, **fields)["images"] == files(webui)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ({"negative_prompt": "dull"}, {"negative_prompt": "dull"}),
        ({"negative_prompt": ""}, {"negative_prompt": None}),
        ({"steps": 4}, {"num_inference_steps": 4}),
        ({"steps": "4"}, {"num_inference_steps": 4}),
        ({"cfg_scale": 5}, {"guidance_scale": 5}),
        ({"width": 128}, {"size": "128x64"}),
        ({"height": 128}, {"size": "64x128"}),
        ({"sampler_index": "Heun"}, {"sampler": "heun"}),
        ({"sampler_name": "DDIM", "sampler_index": "Heun"}, {"sampler": "ddim"}),
        ({"sampler_name": "DDIM", "eta": 0.0}, {"sampler": "ddim"}),
        ({"distilled_cfg_scale": 3.5}, {}),
        ({"a_field_of_tomorrow": {"x": [1]}}, {}),
    ],
    ids=repr,
)
def test_a_field_means_what_it_means_there(
    webui: httpx.Client, field: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert draw(webui, **field)["images"] == files(webui, **expected)


def test_a_field_that_nobody_knows_may_hold_anything(webui: httpx.Client) -> None:
    fields = {"seed": 1, "prompt": "a boat", "tomorrow": ["\ud800", float("nan")], "hr_scale": []}
    headers = {"Content-Type": "application/json"}
    answer = webui.post(TXT2IMG, content=json.dumps(fields), headers=headers)
    assert answer.json()["images"] == files(webui)
    assert answer.json()["parameters"] == {"seed": 1, "prompt": "a boat"}


def test_batches_and_repeats_are_pictures_of_successive_seeds(webui: httpx.Client) -> None:
    answer = draw(webui, seed=41, batch_size=2, n_iter=2)
    assert answer["images"] == files(webui, seed=41, n=4)
    assert info(answer)["all_seeds"] == [41, 42, 43, 44]
    assert (info(answer)["seed"], info(answer)["batch_size"]) == (41, 2)


def test_a_random_seed_is_named_and_gives_the_same_again(webui: httpx.Client) -> None:
    one, other = draw(webui, seed=-1), draw(webui, seed=-1)
    assert info(one)["seed"] != info(other)["seed"]
    assert draw(webui, seed=info(one)["seed"])["images"] == one["images"]


def test_the_answer_says_what_clients_read(webui: httpx.Client) -> None:
    sent = EVERYTHING | {"negative_prompt": "dull", "n_iter": 2}
    answer = draw(webui, **sent)
    assert answer.keys() == {"images", "parameters", "info"}
    assert answer["parameters"].items() <= sent.items()
    assert {"prompt", "seed", "steps", "sampler_name", "enable_hr"} <= answer["parameters"].keys()
    said = info(answer)
    assert re.fullmatch(r"\d{14}", said.pop("job_timestamp"))
    expected = {
        "prompt": "a boat",
        "all_prompts": ["a boat"] * 2,
        "negative_prompt": "dull",
        "all_negative_prompts": ["dull"] * 2,
        "seed": 7,
        "all_seeds": [7, 8],
        "width": 64,
        "height": 72,
        "sampler_name": "Euler a",
        "cfg_scale": 7.0,
        "steps": 8,
        "batch_size": 1,
        "sd_model_name": "fake",
        "clip_skip": 1,
        "warnings": [],
    }
    assert said.items() >= expected.items()


def test_the_infotexts_are_those_of_the_files(webui: httpx.Client) -> None:
    answer = draw(webui, n_iter=2, sampler_name="DPM++ 2M", negative_prompt="dull")
    pictures = [Image.open(BytesIO(b64decode(image))) for image in answer["images"]]
    assert [picture.info["parameters"] for picture in pictures] == info(answer)["infotexts"]
    settings = [PictureSettings.parse(text) for text in info(answer)["infotexts"]]
    assert [made.seed for made in settings] == [1, 2]
    assert {made.sampler for made in settings} == {"dpmpp_2m_karras"}


def test_pictures_need_not_be_sent(webui: httpx.Client) -> None:
    answer = draw(webui, send_images=False)
    assert answer["images"] == []
    assert len(info(answer)["infotexts"]) == 1


def test_a_negative_prompt_without_effect_is_named(webui: httpx.Client) -> None:
    [warning] = info(draw(webui, negative_prompt="dull", cfg_scale=1))["warnings"]
    assert warning.startswith("negative_prompt has no effect")


# ---------------------------------------------------------------------- progress


def test_nothing_is_idle(webui: httpx.Client) -> None:
    wait_until(lambda: state(webui)["state"]["job_count"] == 0)
    assert state(webui) == {
        "progress": 0.0,
        "eta_relative": 0.0,
        "state": {
            "skipped": False,
            "interrupted": False,
            "stopping_generation": False,
            "job": "",
            "job_count": 0,
            "job_timestamp": "0",
            "job_no": 0,
            "sampling_step": 0,
            "sampling_steps": 0,
        },
        "current_image": None,
        "textinfo": None,
    }


def test_progress_is_that_of_the_oldest_and_an_interrupt_ends_all(
    webui: httpx.Client, client: EngineClient
) -> None:
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(draw, webui, **LONG)
        wait_until(lambda: 0 < state(webui)["progress"] < 1)
        second = pool.submit(draw, webui, **LONG | {"steps": 150})
        wait_until(lambda: len(client.rides) == 2)
        seen = state(webui)
        assert seen["state"].items() >= {"job_count": 1, "job_no": 0, "sampling_steps": 200}.items()
        assert 0 < seen["state"]["sampling_step"] < 200
        assert 0 < seen["progress"] < 1
        assert seen["eta_relative"] >= 0
        assert re.fullmatch(r"\d{14}", seen["state"]["job_timestamp"])
        assert webui.post(INTERRUPT).json() == {}
        answers = [first.result(), second.result()]
    for answer in answers:
        assert answer["images"] == []
        assert info(answer)["infotexts"] == []
        assert info(answer)["all_seeds"] == list(range(1, 11))
    assert state(webui)["progress"] == 0
    assert draw(webui)["images"] == files(webui)


def test_a_half_made_picture_is_shown_on_the_way(webui: httpx.Client) -> None:
    with ThreadPoolExecutor(1) as pool:
        drawing = pool.submit(draw, webui, **LONG)
        wait_until(lambda: state(webui)["current_image"] or drawing.done())
        shown = state(webui)["current_image"]
        skipped = webui.get(PROGRESS, params={"skip_current_image": True}).json()
        webui.post(INTERRUPT)
        drawing.result()
    picture = Image.open(BytesIO(b64decode(shown)))
    assert (picture.format, picture.size) == ("PNG", (512, 512))
    assert skipped["current_image"] is None
    assert skipped["progress"] > 0


def test_an_interrupt_leaves_others_aboard(webui: httpx.Client, client: EngineClient) -> None:
    with ThreadPoolExecutor(1) as pool:
        riding = pool.submit(webui.post, GENERATIONS, json=OTHERS)
        wait_until(lambda: client.rides)
        assert state(webui)["state"]["job_count"] == 0
        assert webui.post(INTERRUPT).json() == {}
        [id] = client.rides
        assert webui.post(f"/v1/requests/{id}/cancel").status_code == 200
        assert riding.result().status_code == 499


def test_a_caller_who_goes_away_leaves_the_lift(webui: httpx.Client, client: EngineClient) -> None:
    with connect(webui) as caller:
        send_post(caller, TXT2IMG, LONG)
        wait_until(lambda: state(webui)["progress"] > 0)
    wait_until(lambda: client.pending_rows == 0)
    assert state(webui)["state"]["job_count"] == 0


# ---------------------------------------------------------------------- what clients ask


def test_the_served_model_is_the_only_one(webui: httpx.Client) -> None:
    [model] = webui.get("/sdapi/v1/sd-models").json()
    assert model.keys() == {"title", "model_name", "hash", "sha256", "filename", "config"}
    assert model["title"] == model["model_name"] == "fake"
    assert webui.get(OPTIONS).json()["sd_model_checkpoint"] == model["title"]


def test_options_may_be_said_as_they_are(webui: httpx.Client) -> None:
    options = webui.get(OPTIONS).json()
    assert webui.post(OPTIONS, json=options).status_code == 200
    assert draw(webui, override_settings=options)["images"] == files(webui)
    refused = webui.post(OPTIONS, json=options | {"samples_format": "webp"})
    assert refused.status_code == 422
    assert refused.json()["detail"] == (
        'samples_format is "webp"; it is "png" here and can\'t be changed'
    )


@pytest.mark.parametrize("name", LISTS)
def test_what_there_is_none_of_is_an_empty_list(webui: httpx.Client, name: str) -> None:
    assert webui.get(f"/sdapi/v1/{name}").json() == []


@pytest.mark.parametrize("name", ["checkpoints", "vae", "loras", "embeddings"])
def test_lists_may_be_refreshed(webui: httpx.Client, name: str) -> None:
    answer = webui.post(f"/sdapi/v1/refresh-{name}")
    assert (answer.status_code, answer.json()) == (200, None)


def test_clients_find_what_they_look_for_at_the_start(webui: httpx.Client) -> None:
    assert webui.get("/internal/ping").json() == {}
    assert webui.get("/sdapi/v1/scripts").json() == {"txt2img": [], "img2img": []}
    assert webui.get("/sdapi/v1/embeddings").json() == {"loaded": {}, "skipped": {}}
    assert [entry["name"] for entry in webui.get("/sdapi/v1/upscalers").json()] == ["None"]


def test_the_guides_example_runs(
    webui: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = Path(__file__).parents[3] / "docs" / "a1111.md"
    [block] = re.findall(r"^```python\n(.*?)^```", guide.read_text("utf-8"), re.DOTALL | re.M)
    monkeypatch.chdir(tmp_path)
    url = str(webui.base_url).rstrip("/")
    exec(compile(block.replace("http://127.0.0.1:8000", url), "docs/a1111.md", "exec"), {})
    assert Image.open(BytesIO((tmp_path / "boat.png").read_bytes())).size == (128, 128)
