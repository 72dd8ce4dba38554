"""Z-Image: lone requests equal the stock pipeline, and rows in company those alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, ZImagePipeline

from chairlift.engine.runner import Runner
from chairlift.errors import InvalidRequest, ModelError
from chairlift.models.adapter import Adapter, Conditioning
from chairlift.models.checkpoint import load_checkpoint
from chairlift.models.lora import LoraFile
from chairlift.models.registry import load_model
from chairlift.models.source import LoadFormat, find_model
from chairlift.models.z_image import ZImage
from chairlift.request import LoraUse
from chairlift.sampling.schedule import FLOW_SAMPLERS
from chairlift.scheduling.plan import Plan
from chairlift.validation import create_request
from tests.builders import file_pixels, largest_difference
from tests.company import psnr, run_alone
from tests.models.exactness import (
    check_alone,
    check_bfloat16,
    check_company,
    load_stock,
    run_together,
    stock_pixels,
    stock_settings,
)
from tests.models.loras import trained
from tests.tiny.z_image import save_tiny_z_image

SETTINGS: dict[str, Any] = {"prompt": "a red boat", "seed": 7, "width": 64, "height": 64}
LENGTHS = ["", "a red boat", "two cabins and a tent, " * 5, "x" * 2000]
"""Prompts of 8, 15, 120 and, cut, 512 tokens."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_z_image(tmp_path_factory.mktemp("z_image") / "tiny")


@pytest.fixture(scope="module")
def adapter(folder: Path) -> Adapter:
    return load_model(str(folder), device="cpu")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> DiffusionPipeline:
    return load_stock(folder)


def copy_folder(folder: Path, target: Path, file: str, **values: Any) -> Path:
    """A checkpoint with some values of a JSON file changed."""
    copy = Path(shutil.copytree(folder, target))
    path = copy / file
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(old | values))
    return copy


@pytest.mark.parametrize(("width", "height"), [(64, 64), (104, 40)])
@pytest.mark.parametrize("guidance_scale", [0.0, 0.5, 5.0])
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
    check_alone(adapter, pipeline, settings | {"negative_prompt": "dull"})


@pytest.mark.parametrize("negative_prompt", [None, "", "dull " * 50])
@pytest.mark.parametrize("prompt", [*LENGTHS, "🚠 ⛷️", "<|im_end|>\n"])
def test_any_text_is_a_prompt(
    adapter: Adapter, pipeline: DiffusionPipeline, prompt: str, negative_prompt: str | None
) -> None:
    texts = {"prompt": prompt, "negative_prompt": negative_prompt}
    check_alone(adapter, pipeline, SETTINGS | texts | {"steps": 2, "guidance_scale": 3.0})


# Four steps are at 0, 0.1, 0.25 and 0.5 of the way. The second one is above 0.1 in float32.
@pytest.mark.parametrize("cfg_truncation", [0.0, 0.1, 0.11, 0.3, 1.0])
@pytest.mark.parametrize("cfg_normalization", [0.0, 0.7, 1.0, 1.2, 9.0])
def test_guidance_is_cut_off_and_bounded_as_in_the_stock_pipeline(
    adapter: Adapter, pipeline: DiffusionPipeline, cfg_truncation: float, cfg_normalization: float
) -> None:
    options = {"cfg_truncation": cfg_truncation, "cfg_normalization": cfg_normalization}
    check_alone(adapter, pipeline, SETTINGS | options | {"steps": 4, "guidance_scale": 4.0})


def test_the_options_of_guidance_matter(adapter: Adapter) -> None:
    options: list[dict[str, Any]] = [{"cfg_truncation": cut} for cut in (0.1, 0.11, 0.3, 1.0)]
    options += [{"cfg_normalization": factor} for factor in (0.7, 1.0, 1.2)]
    options.append({"guidance_scale": 0.0})
    settings = SETTINGS | {"steps": 4, "guidance_scale": 4.0}
    pictures = [
        run_alone(adapter, create_request(adapter.card, id="x", **(settings | each)))
        for each in options
    ]
    assert len(set(pictures)) == len(options)


def test_steps_past_the_truncation_cost_no_negative_side(adapter: Adapter) -> None:
    request = create_request(adapter.card, id="x", prompt="", steps=4, cfg_truncation=0.1)
    scales = adapter.cfg_scales(request, adapter.schedule(request))
    assert scales.tolist() == [6.0, 1.0, 1.0, 1.0]


def test_the_shift_may_follow_the_size(tmp_path: Path) -> None:
    folder = save_tiny_z_image(tmp_path / "dynamic", dynamic_shift=True)
    adapter, pipeline = load_model(str(folder), device="cpu"), load_stock(folder)
    for width, height in [(64, 64), (32, 160)]:
        size = {"width": width, "height": height}
        check_alone(adapter, pipeline, SETTINGS | size | {"steps": 4, "guidance_scale": 3.0})


def test_texts_of_other_lengths_leave_a_rows_positions_alone(adapter: Adapter) -> None:
    requests = [
        create_request(
            adapter.card,
            id=str(number),
            **(SETTINGS | {"prompt": prompt, "steps": 4, "guidance_scale": float(number)}),
        )
        for number, prompt in enumerate(LENGTHS)
    ]
    together = [file_pixels(file) for file in run_together(adapter, requests)]
    for picture, request in zip(together, requests, strict=True):
        assert largest_difference(picture, file_pixels(run_alone(adapter, request))) <= 1


@pytest.mark.parametrize("seed", [1, 2])
def test_neighbours_do_not_matter(adapter: Adapter, seed: int, record_property: Any) -> None:
    count, identical = check_company(
        adapter,
        [(64, 64), (64, 64), (40, 72)],
        count=40,
        seed=seed,
        sampler=FLOW_SAMPLERS,
        steps=[1, 2, 5, 12],
        guidance_scale=[0.0, 0.0, 0.5, 4.0],
        cfg_truncation=[0.05, 0.2, 0.5, 1.0, 1.0],
        cfg_normalization=[0.0, 0.0, 0.8, 1.0],
        prompt=LENGTHS,
    )
    record_property("pictures", count)
    record_property("identical", identical)


def test_in_bfloat16_company_costs_no_more_than_in_the_stock_pipeline(
    folder: Path, record_property: Any
) -> None:
    batch = [
        SETTINGS | {"prompt": prompt, "seed": seed, "steps": 8, "guidance_scale": 4.0}
        for seed, prompt in enumerate(LENGTHS)
    ]
    ours, stock = check_bfloat16(folder, batch)
    record_property("PSNR", f"{ours:.1f} dB together against alone, stock {stock:.1f} dB")


def test_a_lone_request_in_bfloat16_is_the_stock_pipelines(folder: Path) -> None:
    adapter = load_model(str(folder), device="cpu", dtype="bfloat16")
    settings = SETTINGS | {"steps": 4, "guidance_scale": 4.0}
    picture = file_pixels(run_alone(adapter, create_request(adapter.card, id="x", **settings)))
    assert psnr(picture, stock_pixels(load_stock(folder, torch.bfloat16), settings)) > 45
    # What a denoiser in bfloat16 can't see anyway: noise isn't rounded.
    noise = adapter.initial_noise((4, 8, 8), torch.Generator().manual_seed(7))
    assert torch.equal(noise, torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(7)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 70, "height": 64}, "a multiple of 8, the nearest is 72x64"),
        ({"width": 8, "height": 520}, "tiny has positions for sides of at most 512"),
        ({"true_cfg_scale": 2.0}, "the classifier-free guidance of tiny is guidance_scale"),
        ({"cfg_truncation": 1.5}, "cfg_truncation is 1.5; it must be from 0.0 to 1.0"),
        ({"guidance_rescale": 0.5}, "tiny doesn't take it"),
        ({"frames": 5}, "num_frames is 5; it must be 1: tiny makes pictures"),
    ],
)
def test_what_does_not_fit_is_refused(
    adapter: Adapter, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        create_request(adapter.card, id="x", prompt="", **settings)


def test_the_longest_sides_have_positions(adapter: Adapter) -> None:
    for width, height in [(512, 8), (8, 512)]:
        settings = SETTINGS | {"width": width, "height": height, "steps": 1}
        picture = run_alone(adapter, create_request(adapter.card, id="x", **settings))
        assert file_pixels(picture).shape == (height, width, 3)


# The text has positions from 1 on, as many as a multiple of 32, and the picture the next one.
@pytest.mark.parametrize(("positions", "tokens"), [(98, 96), (97, 64)])
def test_texts_are_cut_where_positions_end(
    folder: Path, tmp_path: Path, pipeline: DiffusionPipeline, positions: int, tokens: int
) -> None:
    copy = copy_folder(
        folder, tmp_path / "short", "transformer/config.json", axes_lens=[positions, 64, 64]
    )
    adapter = load_model(str(copy), device="cpu")

    def translate(settings: dict[str, Any]) -> dict[str, Any]:
        return stock_settings(settings) | {"max_sequence_length": tokens}

    settings = SETTINGS | {"prompt": "x" * 2000, "steps": 1, "guidance_scale": 3.0}
    check_alone(adapter, pipeline, settings, translate)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("tiny", {}, (50, 5.0)),
        ("Tiny-TURBO-v2", {}, (8, 0.0)),
        ("Tiny-Turbo", {"steps": 9, "guidance_scale": 1.5}, (9, 1.5)),
        ("tiny", {"steps": 8, "guidance_scale": 0}, (8, 0)),
    ],
)
def test_a_turbo_is_told_by_its_name_or_its_folders_settings(
    folder: Path,
    tmp_path: Path,
    name: str,
    settings: dict[str, Any],
    expected: tuple[int, float],
) -> None:
    copy = copy_folder(folder, tmp_path / name, "chairlift.json", **settings)
    card = load_model(str(copy), device="cpu").card
    assert (card.defaults.steps, card.defaults.guidance_scale) == expected
    assert (card.defaults.width, card.defaults.sampler) == (512, "euler")
    assert create_request(card, id="x", prompt="").cfg_scale == 1 + expected[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_random_weights_run(folder: Path, tmp_path: Path, dtype: str) -> None:
    copy = copy_folder(folder, tmp_path / "copy", "text_encoder/config.json", vocab_size=30_000)
    adapter = load_model(str(copy), device="cpu", dtype=dtype, load_format="dummy")
    requests = [
        create_request(
            adapter.card, id=prompt, **(SETTINGS | {"prompt": prompt, "steps": 2, "width": 32})
        )
        for prompt in ("a red boat", "")
    ]
    pictures = run_together(adapter, requests)
    assert [file_pixels(picture).shape for picture in pictures] == [(64, 32, 3)] * 2
    assert len(set(pictures)) == 2


def test_the_shipped_configs_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """At full size, on the meta device: shapes and types, no memory, and nothing that a forward
    would wait for on the host.
    """
    source = find_model("z-image-turbo", LoadFormat.DUMMY)
    meta, classes = torch.device("meta"), ZImage.classes
    adapter = ZImage(
        load_checkpoint(source, classes, meta, torch.bfloat16, lambda *_: None, offload=False)
    )
    # How many tokens are kept can't be told without data.
    monkeypatch.setattr(
        adapter,
        "encode_texts",
        lambda texts: [
            Conditioning(sequences={"text": torch.zeros(40 if text else 9, 2560).bfloat16()})
            for text in texts
        ],
    )
    defaults, limits = adapter.card.defaults, adapter.card.limits
    assert (defaults.width, defaults.height, defaults.steps) == (1024, 1024, 8)
    assert (limits.size_multiple, limits.max_side) == (16, 512 * 16)
    request = create_request(adapter.card, id="a", prompt="a boat", steps=1, guidance_scale=1.0)
    rows = request.row_ids
    plan = Plan(
        key=adapter.batch_key(request), joining=rows, running=rows, finishing=frozenset(rows)
    )
    result = Runner(adapter).run(plan, {"a": request})
    assert not result.failed
    assert adapter.decode(result.finished[rows[0]][None]).shape == (1, 1024, 1024, 3)


# ---------------------------------------------------------------------- LoRA


def save_lora(folder: Path, path: Path, modules: list[str]) -> LoraFile:
    torch.manual_seed(0)
    layers = trained(load_stock(folder).transformer, modules)
    ZImagePipeline.save_lora_weights(path, transformer_lora_layers=layers)
    return LoraFile("sketch", path / "pytorch_lora_weights.safetensors")


def test_a_lora_changes_only_the_rows_that_use_it(folder: Path, tmp_path: Path) -> None:
    modules = ["to_q", "to_out.0", "feed_forward.w2", "layers.0.adaLN_modulation.0"]
    lora = save_lora(folder, tmp_path, [*modules, "t_embedder.mlp.0"])
    pipeline = load_stock(folder)
    pipeline.load_lora_weights(lora.path)
    adapter = load_model(str(folder), device="cpu", loras=[lora])

    def translate(settings: dict[str, Any]) -> dict[str, Any]:
        return stock_settings({k: v for k, v in settings.items() if k != "loras"})

    settings = SETTINGS | {"steps": 4, "guidance_scale": 3.0, "loras": [LoraUse("sketch")]}
    check_alone(adapter, pipeline, settings, translate)
    check_company(
        adapter,
        [(64, 64)],
        count=15,
        steps=[2, 5],
        guidance_scale=[0.0, 3.0],
        prompt=LENGTHS,
        loras=[[], [LoraUse("sketch")], [LoraUse("sketch", -0.5)]],
    )


@pytest.mark.parametrize("module", ["cap_embedder.1", "all_x_embedder.2-1"])
def test_a_lora_where_rows_lie_in_one_sequence_is_refused(
    folder: Path, tmp_path: Path, module: str
) -> None:
    lora = save_lora(folder, tmp_path, [module])
    with pytest.raises(ModelError, match="where rows can't be told apart"):
        load_model(str(folder), device="cpu", loras=[lora])
