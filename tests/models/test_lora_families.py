"""A LoRA on each family: a lone request equals the stock pipeline with the same file and scale."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import pytest

from chairlift.errors import ModelError
from chairlift.models.lora import LoraFile
from chairlift.models.registry import FAMILIES, load_model
from chairlift.request import LoraUse
from tests.models.exactness import check_alone, load_stock, stock_settings
from tests.models.loras import trained
from tests.tiny.flux import save_tiny_flux
from tests.tiny.qwen_image import save_tiny_qwen_image
from tests.tiny.sd3 import save_tiny_sd3
from tests.tiny.sdxl import save_tiny_sdxl
from tests.tiny.z_image import save_tiny_z_image

SETTINGS = {"prompt": "a red boat", "steps": 3, "seed": 5, "width": 64, "height": 64}


@dataclass(frozen=True)
class Case:
    """One family."""

    save: Callable[[Path], Path]
    denoiser: str = "transformer"
    modules: Sequence[str] = ("to_q", "to_v")
    settings: dict[str, Any] = field(default_factory=dict)


CASES = {
    "SDXL": Case(save_tiny_sdxl, denoiser="unet", settings={"guidance_scale": 5.0}),
    "SD3": Case(save_tiny_sd3, settings={"guidance_scale": 5.0}),
    "FLUX": Case(save_tiny_flux, modules=("to_q", "proj_out"), settings={"guidance_scale": 3.5}),
    "Qwen-Image": Case(
        save_tiny_qwen_image, settings={"negative_prompt": "dull", "true_cfg_scale": 4.0}
    ),
    "Z-Image": Case(save_tiny_z_image, settings={"guidance_scale": 3.0}),
}


def save_lora(case: Case, folder: Path, path: Path) -> Path:
    pipeline = load_stock(folder)
    layers = trained(getattr(pipeline, case.denoiser), case.modules)
    type(pipeline).save_lora_weights(path, **{f"{case.denoiser}_lora_layers": layers})
    return path / "pytorch_lora_weights.safetensors"


@pytest.mark.parametrize("name", CASES)
def test_a_lone_request_equals_the_stock_pipeline_with_the_same_lora(
    name: str, tmp_path: Path
) -> None:
    case = CASES[name]
    folder = case.save(tmp_path / "tiny")
    file = save_lora(case, folder, tmp_path)
    adapter = load_model(str(folder), device="cpu", loras=[LoraFile("sketch", file)])
    pipeline = load_stock(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of names that match more layers.
        pipeline.load_lora_weights(file, adapter_name="sketch")
    pipeline.set_adapters(["sketch"], [0.6])

    def translate(settings: dict[str, Any]) -> dict[str, Any]:
        return stock_settings({k: v for k, v in settings.items() if k != "loras"})

    settings = SETTINGS | case.settings
    check_alone(adapter, pipeline, settings | {"loras": [LoraUse("sketch", 0.6)]}, translate)
    pipeline.disable_lora()
    check_alone(adapter, pipeline, settings, translate)


@pytest.mark.filterwarnings("ignore")
def test_a_lora_where_rows_can_not_be_told_apart_is_refused(tmp_path: Path) -> None:
    case = Case(save_tiny_z_image, modules=["cap_embedder.1"])
    folder = case.save(tmp_path / "tiny")
    file = save_lora(case, folder, tmp_path)
    with pytest.raises(ModelError, match=r"cap_embedder.* where rows can't be told apart"):
        load_model(str(folder), device="cpu", loras=[LoraFile("sketch", file)])


def test_every_family_has_a_reader_of_lora_files() -> None:
    for pipeline in FAMILIES:
        assert callable(getattr(diffusers, pipeline).lora_state_dict)
