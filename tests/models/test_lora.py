"""Rows choose LoRAs by name and scale: each equals the stock pipeline with the same ones, whoever
rides along.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from chairlift.errors import ConfigurationError, InvalidRequest, ModelError
from chairlift.models.adapter import Adapter
from chairlift.models.lora import LoraFile
from chairlift.models.registry import load_model
from chairlift.request import LoraUse
from chairlift.validation import create_request
from tests.builders import file_pixels, largest_difference, save_tiny_stable_diffusion
from tests.company import run_alone
from tests.models.exactness import check_alone, check_company, load_stock, stock_settings
from tests.models.loras import ATTENTION, save_lora

CONVOLUTIONS = ["conv1", "conv2", "time_emb_proj"]
ALONE = {"prompt": "a red boat", "seed": 3, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("lora") / "tiny")


@pytest.fixture(scope="module")
def files(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[LoraFile]:
    path = tmp_path_factory.mktemp("loras")
    return [
        LoraFile("sketch", save_lora(folder, path / "sketch", 1, ATTENTION)),
        LoraFile("film", save_lora(folder, path / "film", 2, CONVOLUTIONS)),
        LoraFile("words", save_lora(folder, path / "words", 3, ATTENTION, text_encoder=True)),
    ]


@pytest.fixture(scope="module")
def adapter(folder: Path, files: list[LoraFile]) -> Adapter:
    return load_model(str(folder), device="cpu", loras=files)


@pytest.fixture(scope="module")
def pipeline(folder: Path, files: list[LoraFile]) -> DiffusionPipeline:
    pipeline = load_stock(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns at the second one.
        for file in files:
            pipeline.load_lora_weights(file.path, adapter_name=file.name)
    return pipeline


USES = [
    [],
    [LoraUse("sketch")],
    [LoraUse("film", 0.5)],
    [LoraUse("words", -1.5)],
    [LoraUse("sketch", 0.3), LoraUse("film", 1.2), LoraUse("words", 0.7)],
]


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
@pytest.mark.parametrize("uses", USES, ids=str)
def test_a_lone_request_equals_the_stock_pipeline_with_the_same_loras(
    adapter: Adapter, pipeline: DiffusionPipeline, uses: list[LoraUse], guidance_scale: float
) -> None:
    def translate(settings: dict[str, Any]) -> dict[str, Any]:
        return stock_settings({k: v for k, v in settings.items() if k != "loras"})

    if uses:
        pipeline.enable_lora()
        pipeline.set_adapters([use.name for use in uses], [use.scale for use in uses])
    else:
        pipeline.disable_lora()
    settings = {**ALONE, "steps": 4, "guidance_scale": guidance_scale, "loras": uses}
    check_alone(adapter, pipeline, settings, translate)


def test_every_lora_changes_the_picture(adapter: Adapter) -> None:
    pictures = [
        run_alone(adapter, create_request(adapter.card, id="x", steps=2, loras=uses, **ALONE))
        for uses in USES
    ]
    assert len(set(pictures)) == len(USES)


def test_rows_of_different_loras_and_scales_share_a_batch(adapter: Adapter) -> None:
    request = create_request(adapter.card, id="x", loras=USES[1], **ALONE)
    plain = create_request(adapter.card, id="y", **ALONE)
    assert adapter.batch_key(request) == adapter.batch_key(plain)
    check_company(adapter, [(64, 64)], count=40, loras=USES, guidance_scale=[1.0, 4.0])


def test_loras_that_nobody_uses_change_nothing(folder: Path, adapter: Adapter) -> None:
    bare = load_model(str(folder), device="cpu")
    request = create_request(bare.card, id="x", steps=3, **ALONE)
    assert run_alone(adapter, request) == run_alone(bare, request)


def test_the_card_lists_them(adapter: Adapter) -> None:
    assert adapter.card.loras == ("sketch", "film", "words")


@pytest.mark.parametrize(
    ("uses", "message"),
    [
        ([LoraUse("paint")], "lora is 'paint'; it must be one of sketch, film, words"),
        ([LoraUse("film", 99.0)], "scale of lora 'film' is 99.0; it must be from -10.0 to 10.0"),
        ([LoraUse("film", float("nan"))], "scale of lora 'film' is nan; it must be a finite"),
        ([LoraUse("film"), LoraUse("film")], "lora 'film' is given twice"),
    ],
)
def test_a_use_that_can_not_be_is_refused(
    adapter: Adapter, uses: list[LoraUse], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"^{message}") as refused:
        create_request(adapter.card, id="x", prompt="a", loras=uses)
    assert refused.value.param == "loras"


def changed(file: LoraFile, path: Path, rename: Any) -> Path:
    """A copy whose tensors have other names or shapes."""
    tensors = dict(rename(name, tensor) for name, tensor in load_file(file.path).items())
    save_file(tensors, path)
    return path


DAMAGES: dict[str, tuple[Any, str]] = {
    "of another size": (
        lambda name, tensor: (name, tensor.repeat_interleave(2, dim=-1).contiguous()),
        "doesn't fit unet: .*size mismatch",
    ),
    "of other layers": (
        lambda name, tensor: (name.replace("down_blocks.0", "down_blocks.7"), tensor),
        "doesn't fit",
    ),
    "of another family": (
        lambda name, tensor: (name.replace("unet.", "transformer."), tensor),
        "transformer",
    ),
    "of no family": (lambda name, tensor: (f"x.{name[::-1]}", tensor), ""),
    "LoKr": (lambda name, tensor: (f"{name}.lokr_w1", tensor), "is not a plain LoRA: it has lokr"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_lora_that_does_not_fit_is_refused_in_one_line(
    folder: Path, files: list[LoraFile], tmp_path: Path, damage: str
) -> None:
    rename, message = DAMAGES[damage]
    path = changed(files[0], tmp_path / "bad.safetensors", rename)
    with pytest.raises(ModelError, match=f"bad.safetensors.*{message}") as refused:
        load_model(str(folder), device="cpu", loras=[LoraFile("bad", path)])
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("content", [None, b"", b"not safetensors", b"\x80\x04."])
def test_a_file_that_is_no_safetensors_is_refused(
    folder: Path, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.safetensors can't be read: ") as refused:
        load_model(str(folder), device="cpu", loras=[LoraFile("x", path)])
    assert "\n" not in str(refused.value)


def test_two_loras_of_one_name_are_refused(folder: Path, files: list[LoraFile]) -> None:
    with pytest.raises(ConfigurationError, match="two LoRAs are named 'sketch'"):
        load_model(str(folder), device="cpu", loras=[files[0], files[0]])


def test_the_largest_difference_to_no_lora_is_visible(
    adapter: Adapter,
) -> None:
    """So that the comparisons above compare something."""
    with_lora = create_request(adapter.card, id="x", steps=4, loras=USES[1], **ALONE)
    without = create_request(adapter.card, id="x", steps=4, **ALONE)
    a, b = (file_pixels(run_alone(adapter, request)) for request in (with_lora, without))
    assert largest_difference(a, b) > 20
