"""Stable Diffusion XL equals the stock pipeline, alone and in company."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, EulerDiscreteScheduler

from chairlift.engine.runner import Runner
from chairlift.errors import InvalidRequest, ModelError
from chairlift.models.adapter import Adapter
from chairlift.models.checkpoint import load_checkpoint
from chairlift.models.registry import load_model
from chairlift.models.sdxl import StableDiffusionXL
from chairlift.models.source import LoadFormat, find_model
from chairlift.request import Prompt
from chairlift.sampling.schedule import DIFFUSION_SAMPLERS, diffusion_scheduler
from chairlift.scheduling.plan import Plan
from chairlift.validation import create_request
from tests.builders import file_pixels, largest_difference
from tests.company import run_alone
from tests.models.exactness import (
    check_alone,
    check_bfloat16,
    check_company,
    load_stock,
    stock_pixels,
)
from tests.tiny.sdxl import save_tiny_sdxl

VARIANTS = ["zeros", "encoded"]
"""What a negative prompt becomes that wasn't given."""
LONG = "a boat on a lake, a tent, a very long description " * 5
SETTINGS: dict[str, Any] = {
    "prompt": "a red boat",
    "negative_prompt": "dull",
    "steps": 4,
    "guidance_scale": 5.0,
    "seed": 7,
    "width": 72,
    "height": 40,
}


def edit(path: Path, **values: Any) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def save(folder: Path, variant: str = "zeros") -> Path:
    """Besides the negative prompt, they differ in the scheduler and in how latents are scaled."""
    save_tiny_sdxl(folder, zeros_for_empty_prompt=variant == "zeros")
    if variant == "encoded":
        spread = {"latents_mean": [-1.6, 0.3, 0.6, 0.1], "latents_std": [0.8, 1.2, 1.5, 0.9]}
        edit(folder / "vae" / "config.json", **spread)
        prediction = {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
        edit(folder / "scheduler" / "scheduler_config.json", **prediction)
    return folder


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(variant: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp(variant) / "tiny", variant)


@pytest.fixture(scope="module")
def adapter(folder: Path) -> Adapter:
    return load_model(str(folder), device="cpu")


@pytest.fixture(scope="module")
def stock(folder: Path) -> DiffusionPipeline:
    return load_stock(folder)


@pytest.fixture
def pipeline(folder: Path, stock: DiffusionPipeline) -> DiffusionPipeline:
    stock.scheduler = EulerDiscreteScheduler.from_pretrained(folder / "scheduler")
    return stock


@pytest.mark.parametrize(("width", "height"), [(64, 64), (72, 40)])
@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_a_lone_request_equals_the_stock_pipeline(
    adapter: Adapter,
    pipeline: DiffusionPipeline,
    steps: int,
    guidance_scale: float,
    width: int,
    height: int,
) -> None:
    size = {"width": width, "height": height}
    settings = SETTINGS | size | {"steps": steps, "guidance_scale": guidance_scale}
    check_alone(adapter, pipeline, settings)


@pytest.mark.parametrize("sampler", DIFFUSION_SAMPLERS)
def test_every_sampler_equals_the_stock_pipelines(
    adapter: Adapter, pipeline: DiffusionPipeline, sampler: str
) -> None:
    pipeline.scheduler = diffusion_scheduler(sampler, pipeline.scheduler.config)
    request = create_request(adapter.card, id="alone", sampler=sampler, **SETTINGS)
    picture = file_pixels(run_alone(adapter, request))
    assert largest_difference(picture, stock_pixels(pipeline, SETTINGS)) <= 1


@pytest.mark.parametrize("negative_prompt", [None, "", "dull", LONG])
@pytest.mark.parametrize("prompt", ["", "🚠", LONG])
def test_any_prompts_are_the_stock_pipelines(
    adapter: Adapter, pipeline: DiffusionPipeline, prompt: str, negative_prompt: str | None
) -> None:
    texts = {"prompt": prompt, "negative_prompt": negative_prompt}
    check_alone(adapter, pipeline, SETTINGS | texts)


@pytest.mark.parametrize("guidance_rescale", [0.3, 1.0])
def test_guidance_rescale_is_the_stock_pipelines(
    adapter: Adapter, pipeline: DiffusionPipeline, guidance_rescale: float
) -> None:
    settings = SETTINGS | {"guidance_scale": 9.0, "guidance_rescale": guidance_rescale}
    check_alone(adapter, pipeline, settings)


def test_only_a_negative_prompt_that_was_not_given_is_zeros(adapter: Adapter, variant: str) -> None:
    missing, empty, given = adapter.encode([Prompt(None), Prompt(""), Prompt("dull")])
    for name in ("text", "pooled"):
        assert empty.tensors[name].any()
        assert not torch.equal(empty.tensors[name], given.tensors[name])
        if variant == "zeros":
            assert not missing.tensors[name].any()
        else:
            torch.testing.assert_close(missing.tensors[name], empty.tensors[name])


def test_negative_prompts_are_zeros_where_the_index_does_not_say(tmp_path: Path) -> None:
    folder = save(tmp_path / "tiny")
    index = json.loads((folder / "model_index.json").read_text())
    del index["force_zeros_for_empty_prompt"]
    (folder / "model_index.json").write_text(json.dumps(index))
    [missing] = load_model(str(folder), device="cpu").encode([Prompt(None)])
    assert not missing.tensors["text"].any()


def test_rows_in_random_company_equal_the_same_rows_alone(
    adapter: Adapter, record_property: Callable[[str, object], None]
) -> None:
    guidance: dict[str, Any] = {
        "guidance_scale": [0.0, 1.0, 3.0, 7.0],
        "guidance_rescale": [None, 0.0, 0.7],
    }
    pictures, identical = check_company(adapter, [(64, 64), (72, 40)], **guidance)
    record_property("pictures", pictures)
    record_property("identical", identical)


def test_bfloat16_company_costs_no_more_than_stock_batching(
    folder: Path, record_property: Callable[[str, object], None]
) -> None:
    batch = [
        SETTINGS | {"prompt": prompt, "seed": seed, "steps": 8}
        for seed, prompt in enumerate(["", "a boat", "a boat on a lake", LONG])
    ]
    ours, stock = check_bfloat16(folder, batch)
    record_property("PSNR", f"{ours:.1f} dB together against alone, stock {stock:.1f} dB")


def test_a_size_that_tensors_cannot_take_is_refused(adapter: Adapter) -> None:
    with pytest.raises(InvalidRequest, match=r"multiple of 8, the nearest is 72x40$"):
        create_request(adapter.card, id="a", prompt="", width=74, height=40)


def test_the_vae_is_float32_where_it_overflows_in_float16(tmp_path: Path) -> None:
    folder = save(tmp_path / "tiny")
    network = load_stock(folder)
    with torch.no_grad():
        network.vae.decoder.conv_in.weight.mul_(1e5)  # It is normalized right after.
    network.vae.save_pretrained(folder / "vae")
    settings = SETTINGS | {"steps": 1}
    adapter = load_model(str(folder), device="cpu", dtype="float16")
    card = adapter.card
    assert {part.name: part.bytes // part.parameters for part in card.components}["vae"] == 4
    latents = torch.randn(2, 4, 10, 18, generator=torch.Generator().manual_seed(0))
    images = network.vae.decode(latents / network.vae.config.scaling_factor).sample
    expected = ((images.permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1) * 255).round()
    # Its weights are rounded to float16.
    assert largest_difference(adapter.decode(latents), expected) <= 3
    request = create_request(card, id="alone", **settings)
    expected = stock_pixels(load_stock(folder, torch.float16), settings)
    assert expected.float().std() > 5
    assert largest_difference(file_pixels(run_alone(adapter, request)), expected) <= 3


def test_lcm_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "tiny")
    pipeline = load_stock(folder)
    config = dict(pipeline.unet.config) | {"time_cond_proj_dim": 8}
    type(pipeline.unet).from_config(config).save_pretrained(folder / "unet")
    with pytest.raises(ModelError, match=r"tiny: LCM \(guidance-distilled\) is not supported"):
        load_model(str(folder), device="cpu")


def test_a_checkpoint_without_its_first_text_encoder_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "tiny")
    edit(folder / "model_index.json", text_encoder=[None, None])
    (folder / "text_encoder").rename(folder / "elsewhere")
    with pytest.raises(ModelError, match="tiny: the folder text_encoder is missing"):
        load_model(str(folder), device="cpu")


def test_random_weights_run(tmp_path: Path) -> None:
    folder = save(tmp_path / "tiny")
    for name in ("text_encoder", "text_encoder_2"):
        edit(folder / name / "config.json", vocab_size=30_000)
    adapter = load_model(str(folder), device="cpu", load_format="dummy")
    request = create_request(adapter.card, id="alone", **SETTINGS | {"steps": 1})
    assert file_pixels(run_alone(adapter, request)).shape == (40, 72, 3)


def test_the_shipped_configs_fit_together() -> None:
    """At full size, on the meta device: shapes and types, and no memory."""
    source = find_model("stable-diffusion-xl-base-1.0", LoadFormat.DUMMY)
    meta, classes = torch.device("meta"), StableDiffusionXL.classes
    adapter = StableDiffusionXL(
        load_checkpoint(source, classes, meta, torch.bfloat16, lambda *_: None, offload=False)
    )
    defaults = adapter.card.defaults
    assert (defaults.width, defaults.height, defaults.sampler) == (1024, 1024, "euler")
    request = create_request(adapter.card, id="a", prompt="a boat", steps=1)
    rows = request.row_ids
    plan = Plan(
        key=adapter.batch_key(request), joining=rows, running=rows, finishing=frozenset(rows)
    )
    result = Runner(adapter).run(plan, {"a": request})
    assert not result.failed
    assert adapter.decode(result.finished[rows[0]][None]).shape == (1, 1024, 1024, 3)
