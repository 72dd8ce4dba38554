"""FLUX.1 equals the stock pipeline, alone and in company."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from chairlift.engine.runner import Runner
from chairlift.errors import InvalidRequest
from chairlift.models.adapter import Adapter
from chairlift.models.checkpoint import load_checkpoint
from chairlift.models.flux import Flux
from chairlift.models.registry import load_model
from chairlift.models.source import LoadFormat, find_model
from chairlift.sampling.schedule import flow_scheduler
from chairlift.scheduling.plan import Plan
from chairlift.validation import create_request
from tests.builders import file_pixels
from tests.company import run_alone
from tests.models.exactness import (
    check_alone,
    check_bfloat16,
    check_company,
    load_stock,
    stock_settings,
)
from tests.tiny.flux import save_tiny_flux

VARIANTS: dict[str, dict[str, bool]] = {
    "dev": {"guidance_embeds": True, "dynamic_shift": True},
    "schnell": {"guidance_embeds": False, "dynamic_shift": False},
    "dev, fixed shift": {"guidance_embeds": True, "dynamic_shift": False},
    "schnell, dynamic shift": {"guidance_embeds": False, "dynamic_shift": True},
}
PUBLISHED = pytest.mark.parametrize("variant", ["dev", "schnell"], indirect=True)
LONG = "a boat on a lake, a tent, a very long description " * 5
SETTINGS: dict[str, Any] = {
    "prompt": "a red boat",
    "negative_prompt": "dull",
    "steps": 4,
    "true_cfg_scale": 4.0,
    "seed": 7,
    "width": 72,
    "height": 40,
}


def edit(path: Path, **values: Any) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def translate(settings: dict[str, Any]) -> dict[str, Any]:
    """The stock pipeline guides only where there is a negative prompt; None is empty here."""
    return stock_settings(settings | {"negative_prompt": settings["negative_prompt"] or ""})


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(variant: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_flux(tmp_path_factory.mktemp("flux") / "tiny", **VARIANTS[variant])


@pytest.fixture(scope="module")
def adapter(folder: Path) -> Adapter:
    return load_model(str(folder), device="cpu")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> DiffusionPipeline:
    return load_stock(folder)


@pytest.fixture(scope="module")
def guidance(variant: str) -> dict[str, float]:
    """An embedded guidance scale, other than the default, where the denoiser takes one."""
    return {"guidance_scale": 9.0} if VARIANTS[variant]["guidance_embeds"] else {}


@pytest.mark.parametrize("size", [(64, 64), (72, 40)])
@pytest.mark.parametrize("true_cfg_scale", [1.0, 4.0])
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_a_lone_request_equals_the_stock_pipeline(
    adapter: Adapter,
    pipeline: DiffusionPipeline,
    guidance: dict[str, float],
    steps: int,
    true_cfg_scale: float,
    size: tuple[int, int],
) -> None:
    settings = SETTINGS | guidance | {"steps": steps, "true_cfg_scale": true_cfg_scale}
    check_alone(adapter, pipeline, settings | {"width": size[0], "height": size[1]}, translate)


@pytest.mark.parametrize("variant", ["dev"], indirect=True)
@pytest.mark.parametrize("sampler", ["dpmpp_2m", "unipc"])
def test_other_samplers_equal_the_stock_pipeline_with_their_schedulers(
    adapter: Adapter, folder: Path, sampler: str
) -> None:
    """With dynamic shift: without, the stock pipeline fails, since it tells them the shift too."""
    pipeline = load_stock(folder)
    pipeline.scheduler = flow_scheduler(sampler, pipeline.scheduler.config)

    def without_sampler(settings: dict[str, Any]) -> dict[str, Any]:
        return translate({k: v for k, v in settings.items() if k != "sampler"})

    check_alone(adapter, pipeline, SETTINGS | {"sampler": sampler, "steps": 8}, without_sampler)


@PUBLISHED
@pytest.mark.parametrize("negative_prompt", [None, "", LONG])
@pytest.mark.parametrize("prompt", ["", "🚠", "x y " * 400])
def test_any_prompts_are_the_stock_pipelines(
    adapter: Adapter, pipeline: DiffusionPipeline, prompt: str, negative_prompt: str | None
) -> None:
    texts = {"prompt": prompt, "negative_prompt": negative_prompt}
    check_alone(adapter, pipeline, SETTINGS | texts, translate)


@pytest.mark.parametrize("size", [(1024, 1024), (1024, 8), (640, 1280)])
def test_the_shift_is_that_of_the_pictures_own_size(
    adapter: Adapter, pipeline: DiffusionPipeline, size: tuple[int, int]
) -> None:
    """At sizes where it matters. A token has 8x8 pixels."""
    width, height = size
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(
        sigmas=np.linspace(1.0, 0.2, 5), mu=calculate_shift(width // 8 * (height // 8))
    )
    request = create_request(adapter.card, id="a", prompt="", steps=5, width=width, height=height)
    assert adapter.schedule(request).sigmas == pytest.approx(scheduler.sigmas[:-1].numpy())


@PUBLISHED
def test_rows_in_random_company_equal_the_same_rows_alone(
    adapter: Adapter,
    guidance: dict[str, float],
    record_property: Callable[[str, object], None],
) -> None:
    scales: dict[str, list[float]] = {"true_cfg_scale": [1.0, 1.0, 2.5, 6.0]}
    if guidance:
        scales["guidance_scale"] = [0.0, 1.0, 3.5, 20.0]
    pictures, identical = check_company(adapter, [(64, 64), (72, 40)], count=20, **scales)
    record_property("pictures", pictures)
    record_property("identical", identical)


@PUBLISHED
@pytest.mark.parametrize("true_cfg_scale", [1.0, 4.0])
def test_bfloat16_company_costs_no_more_than_stock_batching(
    folder: Path, true_cfg_scale: float, record_property: Callable[[str, object], None]
) -> None:
    settings = SETTINGS | {"width": 64, "height": 64, "true_cfg_scale": true_cfg_scale}
    batch = [
        settings | {"prompt": prompt, "seed": seed}
        for seed, prompt in enumerate(["", "a boat", "a boat on a lake", LONG])
    ]
    ours, stock = check_bfloat16(folder, batch)
    record_property("PSNR", f"{ours:.1f} dB together against alone, stock {stock:.1f} dB")


def test_what_a_request_gets_that_says_nothing(
    adapter: Adapter, guidance: dict[str, float]
) -> None:
    request = create_request(adapter.card, id="a", prompt="")
    assert (request.width, request.height, request.cfg_scale) == (512, 512, 1.0)
    assert (request.steps, request.guidance_scale) == ((28, 3.5) if guidance else (4, 0.0))


def test_guidance_scale_is_refused_where_the_denoiser_takes_none(
    adapter: Adapter, guidance: dict[str, float]
) -> None:
    if guidance:
        assert create_request(adapter.card, id="a", prompt="", guidance_scale=2.0).cfg_scale == 1
        return
    with pytest.raises(InvalidRequest, match=r"classifier-free guidance is true_cfg_scale$"):
        create_request(adapter.card, id="a", prompt="", guidance_scale=2.0)


def test_a_size_that_is_no_multiple_is_refused(adapter: Adapter) -> None:
    with pytest.raises(InvalidRequest, match=r"multiple of 8, the nearest is 72x40$"):
        create_request(adapter.card, id="a", prompt="", width=70, height=42)


def test_a_negative_prompt_without_guidance_has_no_effect_and_says_so(adapter: Adapter) -> None:
    settings = SETTINGS | {"true_cfg_scale": 1.0}
    without = create_request(adapter.card, id="a", **settings | {"negative_prompt": None})
    request = create_request(adapter.card, id="a", **settings)
    assert not without.warnings
    assert "negative_prompt has no effect" in request.warnings[0]
    assert "true_cfg_scale is 1.0" in request.warnings[0]
    assert run_alone(adapter, request) == run_alone(adapter, without)


def test_random_weights_run(tmp_path: Path) -> None:
    folder = save_tiny_flux(tmp_path / "tiny")
    for name in ("text_encoder", "text_encoder_2"):
        edit(folder / name / "config.json", vocab_size=30_000)
    adapter = load_model(str(folder), device="cpu", load_format="dummy")
    request = create_request(adapter.card, id="alone", **SETTINGS | {"steps": 1})
    assert file_pixels(run_alone(adapter, request)).shape == (40, 72, 3)


@pytest.mark.parametrize(("name", "steps"), [("flux.1-dev", 28), ("flux.1-schnell", 4)])
def test_the_shipped_configs_fit_together(name: str, steps: int) -> None:
    """At full size, on the meta device: shapes and types, and no memory."""
    source = find_model(name, LoadFormat.DUMMY)
    meta, classes = torch.device("meta"), Flux.classes
    adapter = Flux(
        load_checkpoint(source, classes, meta, torch.bfloat16, lambda *_: None, offload=False)
    )
    assert adapter.card.limits.size_multiple == 16
    assert adapter.card.defaults.steps == steps
    request = create_request(adapter.card, id="a", prompt="a boat", steps=1)
    rows = request.row_ids
    plan = Plan(
        key=adapter.batch_key(request), joining=rows, running=rows, finishing=frozenset(rows)
    )
    result = Runner(adapter).run(plan, {"a": request})
    assert not result.failed
    assert adapter.decode(result.finished[rows[0]][None]).shape == (1, 1024, 1024, 3)
