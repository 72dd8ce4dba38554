"""A lone request equals the stock diffusers pipeline from the same folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from diffusers import DiffusionPipeline

from chairlift import Engine
from chairlift.models.registry import load_model
from chairlift.sampling.schedule import DIFFUSION_SAMPLERS, diffusion_scheduler
from tests.builders import (
    largest_difference,
    pixels,
    save_tiny_stable_diffusion,
    stock_picture,
)
from tests.models.exactness import check_alone, check_bfloat16, check_company

CONFIGS: dict[str, dict[str, Any]] = {
    "epsilon": {"prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1},
    "v": {"prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    "zero terminal SNR": {
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": True,
    },
}


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param) / "tiny"
    return save_tiny_stable_diffusion(path, **CONFIGS[request.param])


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with Engine(str(folder), device="cpu") as engine:
        yield engine


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> DiffusionPipeline:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def scheduler_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    return config


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("sampler", DIFFUSION_SAMPLERS)
def test_a_lone_request_equals_the_stock_pipeline(
    folder: Path,
    engine: Engine,
    pipeline: DiffusionPipeline,
    sampler: str,
    steps: int,
    guidance_scale: float,
) -> None:
    width, height = (64, 64) if steps != 4 else (72, 40)
    settings: dict[str, Any] = {
        "negative_prompt": "dull" if steps == 20 else "",
        "steps": steps,
        "guidance_scale": guidance_scale,
        "seed": 7,
        "width": width,
        "height": height,
    }
    pipeline.scheduler = diffusion_scheduler(sampler, scheduler_config(folder))
    if sampler == "dpmpp_2m_karras":
        # Its first timestep may come twice, which the stock pipeline doesn't expect.
        pipeline.scheduler.set_begin_index(0)
    expected = stock_picture(pipeline, prompt="a red boat", **settings)
    [picture] = engine.generate("a red boat", sampler=sampler, **settings)
    assert largest_difference(pixels(picture), expected) <= 1


@pytest.mark.parametrize("guidance_rescale", [0.3, 1.0])
def test_guidance_rescale_is_the_stock_pipelines(
    folder: Path, pipeline: DiffusionPipeline, guidance_rescale: float
) -> None:
    adapter = load_model(str(folder), device="cpu")
    pipeline.scheduler = diffusion_scheduler("euler", scheduler_config(folder))
    settings = {"prompt": "a red boat", "negative_prompt": "dull", "steps": 4, "seed": 1}
    settings |= {"guidance_scale": 9.0, "width": 64, "height": 40}
    check_alone(adapter, pipeline, settings | {"guidance_rescale": guidance_rescale})


def test_rows_in_random_company_equal_the_same_rows_alone(folder: Path) -> None:
    adapter = load_model(str(folder), device="cpu")
    scales = {"guidance_scale": [0.0, 1.0, 5.0], "guidance_rescale": [None, 0.0, 0.7]}
    check_company(adapter, [(64, 64), (64, 64), (72, 40)], **scales)


def test_bfloat16_company_costs_no_more_than_stock_batching(
    folder: Path, record_property: Callable[[str, object], None]
) -> None:
    batch = [
        {"prompt": prompt, "negative_prompt": "dull", "steps": 8, "guidance_scale": 5.0}
        | {"seed": seed, "width": 64, "height": 64}
        for seed, prompt in enumerate(["", "a boat", "a boat on a lake", "x " * 30])
    ]
    ours, stock = check_bfloat16(folder, batch)
    record_property("PSNR", f"{ours:.1f} dB together against alone, stock {stock:.1f} dB")


@pytest.mark.parametrize("prompt", ["", "x" * 10_000, "🚠 ⛷️ 🏔️", "עברית ועוד", "a\nb\tc\0d"])
def test_any_text_is_a_prompt(
    folder: Path, engine: Engine, pipeline: DiffusionPipeline, prompt: str
) -> None:
    settings: dict[str, Any] = {
        "negative_prompt": "",
        "steps": 2,
        "guidance_scale": 3.0,
        "seed": 1,
        "width": 64,
        "height": 64,
    }
    pipeline.scheduler = diffusion_scheduler("euler", scheduler_config(folder))
    expected = stock_picture(pipeline, prompt=prompt, **settings)
    [picture] = engine.generate(prompt, sampler="euler", **settings)
    assert largest_difference(pixels(picture), expected) <= 1


@pytest.mark.parametrize(("width", "height"), [(8, 8), (8, 64), (128, 128), (256, 64)])
def test_sizes_at_the_limits(engine: Engine, width: int, height: int) -> None:
    [picture] = engine.generate("a boat", width=width, height=height, steps=1)
    assert picture.image.size == (width, height)


@pytest.mark.parametrize(
    ("scheduler", "settings", "sampler"),
    [
        ("PNDMScheduler", {}, "plms"),
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, "dpmpp_2m_karras"),
        ("KDPM2DiscreteScheduler", {}, "euler"),
    ],
)
def test_the_default_sampler_follows_the_checkpoints_scheduler(
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    scheduler: str,
    settings: dict[str, Any],
    sampler: str,
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    path = copy / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text()) | {"_class_name": scheduler} | settings
    path.write_text(json.dumps(config))
    assert load_model(str(copy), device="cpu").card.defaults.sampler == sampler
    assert ("KDPM2DiscreteScheduler isn't offered" in caplog.text) == (sampler == "euler")


def test_a_folder_may_bring_defaults_of_its_own(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    settings = {"steps": 7, "guidance_scale": 2, "sampler": "heun", "max_pixels": 4096}
    (copy / "chairlift.json").write_text(json.dumps(settings))
    card = load_model(str(copy), device="cpu").card
    assert (card.defaults.steps, card.defaults.guidance_scale) == (7, 2)
    assert (card.defaults.sampler, card.limits.max_pixels) == ("heun", 4096)
