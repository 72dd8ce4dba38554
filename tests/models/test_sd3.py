"""Stable Diffusion 3 and 3.5 equal the stock pipeline, alone and in company."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from chairlift.engine.runner import Runner
from chairlift.errors import InvalidRequest, ModelError
from chairlift.models.adapter import Adapter
from chairlift.models.checkpoint import load_checkpoint
from chairlift.models.registry import load_model
from chairlift.models.sd3 import StableDiffusion3
from chairlift.models.source import LoadFormat, find_model
from chairlift.scheduling.plan import Plan
from chairlift.validation import create_request
from tests.builders import file_pixels
from tests.company import run_alone
from tests.models.exactness import (
    check_alone,
    check_bfloat16,
    check_company,
    load_stock,
)
from tests.tiny.sd3 import save_tiny_sd3

VARIANTS: dict[str, dict[str, Any]] = {
    "3": {},
    "3.5 medium": {
        "qk_norm": "rms_norm",
        "dual_attention_layers": (0,),
        "dynamic_shift": True,
    },
    "without T5": {"t5": False, "patch_size": 1},
}
SIZES = {"3": (72, 40), "3.5 medium": (72, 40), "without T5": (36, 44)}
"""One of each that is neither square nor a multiple of 16."""
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
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
DYNAMIC = {"use_dynamic_shifting": True, "time_shift_type": "exponential"}


def edit(path: Path, **values: Any) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def take_away(folder: Path, *components: str) -> None:
    edit(folder / "model_index.json", **{name: [None, None] for name in components})


def load_stock_sd3(folder: Path) -> DiffusionPipeline:
    """It has to be told what the folder lacks."""
    index = json.loads((folder / "model_index.json").read_text())
    lacking = {name: None for name, entry in index.items() if entry == [None, None]}
    lacking = {name: None for name in lacking if name.startswith(("text_encoder", "tokenizer"))}
    pipeline = DiffusionPipeline.from_pretrained(folder, **lacking)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(variant: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_sd3(tmp_path_factory.mktemp("sd3") / "tiny", **VARIANTS[variant])


@pytest.fixture(scope="module")
def adapter(folder: Path) -> Adapter:
    return load_model(str(folder), device="cpu")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> DiffusionPipeline:
    return load_stock_sd3(folder)


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_a_lone_request_equals_the_stock_pipeline(
    adapter: Adapter,
    pipeline: DiffusionPipeline,
    variant: str,
    steps: int,
    guidance_scale: float,
    square: bool,
) -> None:
    width, height = (64, 64) if square else SIZES[variant]
    size = {"width": width, "height": height}
    settings = SETTINGS | size | {"steps": steps, "guidance_scale": guidance_scale}
    check_alone(adapter, pipeline, settings)


@pytest.mark.parametrize("negative_prompt", [None, "", "dull", LONG])
@pytest.mark.parametrize("prompt", ["", "🚠", LONG])
def test_any_prompts_are_the_stock_pipelines(
    adapter: Adapter, pipeline: DiffusionPipeline, prompt: str, negative_prompt: str | None
) -> None:
    texts = {"prompt": prompt, "negative_prompt": negative_prompt}
    check_alone(adapter, pipeline, SETTINGS | texts)


def test_rows_in_random_company_equal_the_same_rows_alone(
    adapter: Adapter, variant: str, record_property: Callable[[str, object], None]
) -> None:
    sizes = [(64, 64), SIZES[variant]]
    pictures, identical = check_company(adapter, sizes, guidance_scale=[0.0, 1.0, 3.0, 7.0])
    record_property("pictures", pictures)
    record_property("identical", identical)


@pytest.mark.parametrize("name", ["3", "3.5 medium"])
def test_bfloat16_company_costs_no_more_than_stock_batching(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    folder = save_tiny_sd3(tmp_path / "tiny", **VARIANTS[name])
    batch = [
        SETTINGS | {"prompt": prompt, "seed": seed, "steps": 8}
        for seed, prompt in enumerate(["", "a boat", "a boat on a lake", LONG])
    ]
    ours, stock = check_bfloat16(folder, batch)
    record_property("PSNR", f"{ours:.1f} dB together against alone, stock {stock:.1f} dB")


@pytest.mark.parametrize(
    ("scheduler", "settings", "sampler"),
    [
        ("FlowMatchEulerDiscreteScheduler", {"shift": 2.0}, "euler"),
        # It has a max_shift of its own where its configuration has none.
        ("FlowMatchEulerDiscreteScheduler", DYNAMIC, "euler"),
        ("FlowMatchHeunDiscreteScheduler", {"shift": 2.0}, "heun"),
        ("DPMSolverMultistepScheduler", FLOW, "dpmpp_2m"),
        ("DPMSolverMultistepScheduler", FLOW | DYNAMIC, "dpmpp_2m"),
        ("UniPCMultistepScheduler", FLOW, "unipc"),
        ("UniPCMultistepScheduler", FLOW | DYNAMIC, "unipc"),
    ],
)
def test_the_default_sampler_and_its_shift_are_the_schedulers(
    scheduler: str, settings: dict[str, Any], sampler: str, tmp_path: Path
) -> None:
    folder = save_tiny_sd3(tmp_path / "tiny")
    config = {"_class_name": scheduler, "num_train_timesteps": 1000, **settings}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    edit(folder / "model_index.json", scheduler=["diffusers", scheduler])
    adapter = load_model(str(folder), device="cpu")
    assert adapter.card.defaults.sampler == sampler
    pipeline = load_stock(folder)
    check_alone(adapter, pipeline, SETTINGS)
    levels = adapter.schedule(create_request(adapter.card, id="a", **SETTINGS)).sigmas
    np.testing.assert_allclose(levels, pipeline.scheduler.sigmas[:-1], rtol=1e-5)


@pytest.mark.parametrize(
    ("scheduler", "settings", "sampler"),
    [
        ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, "euler_ancestral"),
        ("FlowMatchLCMScheduler", {}, "euler"),
    ],
)
def test_a_default_sampler_that_has_no_equal(
    scheduler: str,
    settings: dict[str, Any],
    sampler: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = save_tiny_sd3(tmp_path / "tiny")
    edit(folder / "scheduler" / "scheduler_config.json", _class_name=scheduler, **settings)
    assert load_model(str(folder), device="cpu").card.defaults.sampler == sampler
    assert ("FlowMatchLCMScheduler isn't offered" in caplog.text) == (sampler == "euler")


@pytest.mark.parametrize("absent", [{0}, {1}, {0, 1}], ids=str)
def test_a_missing_clip_is_zeros(
    absent: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stock pipeline has it, and its output is blotted out."""
    folder = save_tiny_sd3(tmp_path / "tiny")
    pipeline = load_stock(folder)
    encode = pipeline._get_clip_prompt_embeds

    def encode_partly(*args: Any, clip_model_index: int, **options: Any) -> Any:
        states, pooled = encode(*args, clip_model_index=clip_model_index, **options)
        if len(absent) == 2:
            states = states[:, :0]  # No tokens at all.
        factor = float(clip_model_index not in absent)
        return states * factor, pooled * factor

    monkeypatch.setattr(pipeline, "_get_clip_prompt_embeds", encode_partly)
    for index in absent:
        take_away(folder, *(name + ("", "_2")[index] for name in ("text_encoder", "tokenizer")))
    adapter = load_model(str(folder), device="cpu")
    for guidance_scale in (1.0, 5.0):
        check_alone(adapter, pipeline, SETTINGS | {"guidance_scale": guidance_scale})


def test_the_sizes_that_a_model_takes(adapter: Adapter, variant: str) -> None:
    multiple = 4 if variant == "without T5" else 8
    assert adapter.card.limits.max_side == 32 * multiple
    wanted: dict[str, Any] = {"id": "a", "prompt": "", "height": 40}
    with pytest.raises(InvalidRequest, match=rf"multiple of {multiple}, the nearest is 72x40$"):
        create_request(adapter.card, width=73, **wanted)
    with pytest.raises(InvalidRequest, match=f"positions for sides of at most {32 * multiple}$"):
        create_request(adapter.card, width=33 * multiple, **wanted)
    request = create_request(adapter.card, width=32 * multiple, steps=1, **wanted)
    assert file_pixels(run_alone(adapter, request)).shape == (40, 32 * multiple, 3)


@pytest.mark.parametrize(
    ("components", "reason"),
    [
        (["text_encoder", "text_encoder_2", "text_encoder_3"], "it has no text encoder"),
        (["tokenizer_2"], "text_encoder_2 has no tokenizer_2"),
    ],
)
def test_text_encoders_that_are_too_few_are_refused(
    components: list[str], reason: str, tmp_path: Path
) -> None:
    folder = save_tiny_sd3(tmp_path / "tiny")
    take_away(folder, *components)
    with pytest.raises(ModelError, match=f"^tiny: {reason}$"):
        load_model(str(folder), device="cpu")


def test_text_encoders_of_another_width_are_refused(tmp_path: Path) -> None:
    folder = save_tiny_sd3(tmp_path / "tiny")
    pipeline = load_stock(folder)
    config = dict(pipeline.transformer.config) | {"pooled_projection_dim": 48}
    type(pipeline.transformer).from_config(config).save_pretrained(folder / "transformer")
    with pytest.raises(ModelError, match="dim is 48; the text encoders make 40"):
        load_model(str(folder), device="cpu")


def test_random_weights_run(tmp_path: Path) -> None:
    folder = save_tiny_sd3(tmp_path / "tiny")
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        edit(folder / name / "config.json", vocab_size=30_000)
    adapter = load_model(str(folder), device="cpu", load_format="dummy")
    request = create_request(adapter.card, id="alone", **SETTINGS | {"steps": 1})
    assert file_pixels(run_alone(adapter, request)).shape == (40, 72, 3)


def test_the_shipped_configs_fit_together() -> None:
    """At full size, on the meta device: shapes and types, and no memory."""
    source = find_model("stable-diffusion-3.5-medium", LoadFormat.DUMMY)
    meta, classes = torch.device("meta"), StableDiffusion3.classes
    adapter = StableDiffusion3(
        load_checkpoint(source, classes, meta, torch.bfloat16, lambda *_: None, offload=False)
    )
    defaults, limits = adapter.card.defaults, adapter.card.limits
    assert (defaults.width, defaults.height, defaults.sampler) == (1024, 1024, "euler")
    assert (limits.size_multiple, limits.max_side) == (16, 384 * 16)
    request = create_request(adapter.card, id="a", prompt="a boat", steps=1)
    rows = request.row_ids
    plan = Plan(
        key=adapter.batch_key(request), joining=rows, running=rows, finishing=frozenset(rows)
    )
    result = Runner(adapter).run(plan, {"a": request})
    assert not result.failed
    assert adapter.decode(result.finished[rows[0]][None]).shape == (1, 1024, 1024, 3)
