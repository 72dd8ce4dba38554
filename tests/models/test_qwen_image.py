"""Qwen-Image equals the stock pipeline, alone and in company."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift

from chairlift.engine.runner import Runner
from chairlift.errors import InvalidRequest
from chairlift.models.adapter import Adapter
from chairlift.models.checkpoint import load_checkpoint
from chairlift.models.qwen_image import QwenImage
from chairlift.models.registry import load_model
from chairlift.models.source import LoadFormat, find_model
from chairlift.request import Prompt
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
from tests.tiny.qwen_image import save_tiny_qwen_image

VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "fixed shift": {"use_dynamic_shifting": False, "shift": 3.0, "shift_terminal": None},
    "left padding": {},
}
PUBLISHED = pytest.mark.parametrize("variant", ["published"], indirect=True)
LONG = "a boat on a lake, a tent, a very long description " * 5
TEXTS = ["", "a boat", "{} <|im_end|> 🚠", LONG, "x y " * 400]
SETTINGS: dict[str, Any] = {
    "prompt": "a red boat",
    "negative_prompt": "dull",
    "steps": 4,
    "true_cfg_scale": 4.0,
    "seed": 7,
    "width": 96,
    "height": 48,
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
    folder = save_tiny_qwen_image(tmp_path_factory.mktemp("qwen") / "tiny")
    edit(folder / "scheduler" / "scheduler_config.json", **VARIANTS[variant])
    if variant == "left padding":
        edit(folder / "tokenizer" / "tokenizer_config.json", padding_side="left")
    return folder


@pytest.fixture(scope="module")
def adapter(folder: Path) -> Adapter:
    return load_model(str(folder), device="cpu")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> DiffusionPipeline:
    return load_stock(folder)


@pytest.fixture(scope="module")
def one_step_pipeline(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> DiffusionPipeline:
    """Stretching a lone level to ``shift_terminal`` is 0 / 0, and the stock pipeline's picture is
    NaN; here one step isn't stretched.
    """
    copy = tmp_path_factory.mktemp("one step") / "tiny"
    shutil.copytree(folder, copy)
    edit(copy / "scheduler" / "scheduler_config.json", shift_terminal=None)
    return load_stock(copy)


@pytest.mark.parametrize("size", [(64, 64), (96, 48)])
@pytest.mark.parametrize("true_cfg_scale", [1.0, 4.0])
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_a_lone_request_equals_the_stock_pipeline(
    adapter: Adapter,
    pipeline: DiffusionPipeline,
    one_step_pipeline: DiffusionPipeline,
    steps: int,
    true_cfg_scale: float,
    size: tuple[int, int],
) -> None:
    settings = SETTINGS | {"steps": steps, "true_cfg_scale": true_cfg_scale}
    settings |= {"width": size[0], "height": size[1]}
    stock = one_step_pipeline if steps == 1 else pipeline
    check_alone(adapter, stock, settings, translate)


@PUBLISHED
@pytest.mark.parametrize("negative_prompt", [None, "", LONG])
@pytest.mark.parametrize("prompt", TEXTS)
def test_any_prompts_are_the_stock_pipelines(
    adapter: Adapter, pipeline: DiffusionPipeline, prompt: str, negative_prompt: str | None
) -> None:
    texts = {"prompt": prompt, "negative_prompt": negative_prompt}
    check_alone(adapter, pipeline, SETTINGS | texts, translate)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_text_is_encoded_as_if_it_were_alone(folder: Path, dtype: str) -> None:
    """The stock pipeline pads those of a batch, which in bfloat16 changes the last bits."""
    adapter = load_model(str(folder), device="cpu", dtype=dtype)
    pipeline = load_stock(folder, getattr(torch, dtype))
    together = adapter.encode([Prompt(text) for text in (*TEXTS, None)])
    for text, conditioning in zip((*TEXTS, ""), together, strict=True):
        [alone], _ = pipeline.encode_prompt(text, max_sequence_length=512)
        assert torch.equal(conditioning.sequences["text"], alone)
    lengths = [len(conditioning.sequences["text"]) for conditioning in together]
    assert min(lengths) == 5, "what follows the prompt"
    assert max(lengths) == 512


@pytest.mark.parametrize("size", [(1024, 1024), (1024, 16), (1280, 640)])
def test_the_shift_is_that_of_the_pictures_own_size(
    adapter: Adapter, pipeline: DiffusionPipeline, size: tuple[int, int]
) -> None:
    """At sizes where it matters. A token has 16x16 pixels."""
    width, height = size
    scheduler = pipeline.scheduler
    mu = calculate_shift(width // 16 * (height // 16), 256, 8192, 0.5, 0.9)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.2, 5), mu=mu)
    request = create_request(adapter.card, id="a", prompt="", steps=5, width=width, height=height)
    assert adapter.schedule(request).sigmas == pytest.approx(scheduler.sigmas[:-1].numpy())


@pytest.mark.parametrize("variant", ["published", "left padding"], indirect=True)
def test_rows_in_random_company_equal_the_same_rows_alone(
    adapter: Adapter, record_property: Callable[[str, object], None]
) -> None:
    pictures, identical = check_company(
        adapter, [(64, 64), (96, 48)], true_cfg_scale=[1.0, 1.0, 2.5, 6.0]
    )
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
        for seed, prompt in enumerate(["", "a boat", "a boat on a lake, at night", LONG])
    ]
    ours, stock = check_bfloat16(folder, batch)
    record_property("PSNR", f"{ours:.1f} dB together against alone, stock {stock:.1f} dB")


@PUBLISHED
def test_what_a_request_gets_that_says_nothing(adapter: Adapter) -> None:
    request = create_request(adapter.card, id="a", prompt="")
    assert (request.width, request.height) == (1024, 1024)
    assert (request.steps, request.cfg_scale, request.sampler) == (50, 4.0, "euler")


@PUBLISHED
def test_guidance_scale_is_refused(adapter: Adapter) -> None:
    with pytest.raises(InvalidRequest, match=r"classifier-free guidance is true_cfg_scale$"):
        create_request(adapter.card, id="a", prompt="", guidance_scale=2.0)


@PUBLISHED
def test_the_sizes_that_a_model_takes(adapter: Adapter) -> None:
    wanted = {"id": "a", "prompt": "x y " * 400, "height": 16, "steps": 1}
    with pytest.raises(InvalidRequest, match=r"multiple of 16, the nearest is 112x16$"):
        create_request(adapter.card, width=105, **wanted)
    longest = adapter.card.limits.max_side
    assert longest == 114_688
    with pytest.raises(InvalidRequest, match=r"positions for sides of at most 114688$"):
        create_request(adapter.card, width=longest + 16, **wanted)


@PUBLISHED
def test_the_longest_side_has_positions_left_for_the_longest_text(adapter: Adapter) -> None:
    """The positions alone: a picture of that size takes too long here."""
    assert isinstance(adapter, QwenImage)
    longest = adapter.card.limits.max_side
    assert longest is not None
    positions = adapter._transformer.pos_embed
    picture, text = positions([[(1, 1, longest // 16)]], max_txt_seq_len=512)
    assert (len(picture), len(text)) == (longest // 16, 512)
    assert len(positions([[(1, 1, longest // 16 + 2)]], max_txt_seq_len=512)[1]) == 511


@PUBLISHED
def test_a_negative_prompt_without_guidance_has_no_effect_and_says_so(adapter: Adapter) -> None:
    settings = SETTINGS | {"true_cfg_scale": 1.0}
    without = create_request(adapter.card, id="a", **settings | {"negative_prompt": None})
    request = create_request(adapter.card, id="a", **settings)
    assert not without.warnings
    assert "negative_prompt has no effect" in request.warnings[0]
    assert "true_cfg_scale is 1.0" in request.warnings[0]
    assert run_alone(adapter, request) == run_alone(adapter, without)


@PUBLISHED
def test_what_texts_dont_need_is_not_kept(adapter: Adapter, pipeline: DiffusionPipeline) -> None:
    [encoder] = [part for part in adapter.card.components if part.name == "text_encoder"]
    language_model = pipeline.text_encoder.model.language_model
    assert encoder.parameters == sum(weights.numel() for weights in language_model.parameters())


def test_random_weights_run(tmp_path: Path) -> None:
    folder = save_tiny_qwen_image(tmp_path / "tiny")
    path = folder / "text_encoder" / "config.json"
    edit(path, text_config=json.loads(path.read_text())["text_config"] | {"vocab_size": 30_000})
    adapter = load_model(str(folder), device="cpu", load_format="dummy")
    request = create_request(adapter.card, id="alone", **SETTINGS | {"steps": 1})
    assert file_pixels(run_alone(adapter, request)).shape == (48, 96, 3)


def test_the_shipped_configs_fit_together() -> None:
    """At full size, on the meta device: shapes and types, and no memory."""
    source = find_model("qwen-image", LoadFormat.DUMMY)
    meta, classes = torch.device("meta"), QwenImage.classes
    adapter = QwenImage(
        load_checkpoint(source, classes, meta, torch.bfloat16, lambda *_: None, offload=False)
    )
    assert adapter.card.limits.size_multiple == 16
    request = create_request(adapter.card, id="a", prompt="a boat", negative_prompt="", steps=1)
    rows = request.row_ids
    plan = Plan(
        key=adapter.batch_key(request), joining=rows, running=rows, finishing=frozenset(rows)
    )
    result = Runner(adapter).run(plan, {"a": request})
    assert not result.failed
    assert adapter.decode(result.finished[rows[0]][None]).shape == (1, 1024, 1024, 3)
