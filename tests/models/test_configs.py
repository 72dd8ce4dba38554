"""The configs that are shipped are those of the published checkpoints."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers

import chairlift.models

CONFIGS = Path(chairlift.models.__file__).parent / "configs"
LIBRARIES = {"diffusers": diffusers, "transformers": transformers}

CLIP_L = {"CLIPTextModel": 123_060_480}
CLIP_L_PROJECTED = {"CLIPTextModelWithProjection": 123_650_304}
CLIP_G = {"CLIPTextModelWithProjection": 694_659_840}
T5_XXL = {"T5EncoderModel": 4_762_310_656}
VAE_4 = {"AutoencoderKL": 83_653_863}
VAE_16 = {"AutoencoderKL": 83_819_683}

PARAMETERS: dict[str, dict[str, dict[str, int]]] = {
    "flux.1-dev": {
        "text_encoder": CLIP_L,
        "text_encoder_2": T5_XXL,
        "transformer": {"FluxTransformer2DModel": 11_901_408_320},
        "vae": VAE_16,
    },
    "flux.1-schnell": {
        "text_encoder": CLIP_L,
        "text_encoder_2": T5_XXL,
        "transformer": {"FluxTransformer2DModel": 11_891_178_560},
        "vae": VAE_16,
    },
    "qwen-image": {
        "text_encoder": {"Qwen2_5_VLForConditionalGeneration": 8_292_166_656},
        "transformer": {"QwenImageTransformer2DModel": 20_430_401_088},
        "vae": {"AutoencoderKLQwenImage": 126_892_531},
    },
    "stable-diffusion-3.5-medium": {
        "text_encoder": CLIP_L_PROJECTED,
        "text_encoder_2": CLIP_G,
        "text_encoder_3": T5_XXL,
        "transformer": {"SD3Transformer2DModel": 2_243_171_520},  # the positions are a buffer
        "vae": VAE_16,
    },
    "stable-diffusion-v1-5": {
        "text_encoder": CLIP_L,
        "unet": {"UNet2DConditionModel": 859_520_964},
        "vae": VAE_4,
    },
    "stable-diffusion-xl-base-1.0": {
        "text_encoder": CLIP_L,
        "text_encoder_2": CLIP_G,
        "unet": {"UNet2DConditionModel": 2_567_463_684},
        "vae": VAE_4,
    },
    "wan2.1-t2v-1.3b": {
        "text_encoder": {"UMT5EncoderModel": 5_680_910_336},
        "transformer": {"WanTransformer3DModel": 1_418_996_800},
        "vae": {"AutoencoderKLWan": 126_892_531},
    },
    "z-image-turbo": {
        "text_encoder": {"Qwen3Model": 4_022_468_096},
        "transformer": {"ZImageTransformer2DModel": 6_154_908_736},
        "vae": VAE_16,
    },
}
"""Of every network: its class and how many parameters it is published with."""

NETWORKS = [
    pytest.param(name, component, id=f"{name}-{component}")
    for name, networks in PARAMETERS.items()
    for component in networks
]
TOKENIZERS = [
    pytest.param(path, id=f"{path.parent.parent.name}-{path.parent.name}")
    for path in sorted(CONFIGS.glob("*/*/tokenizer_config.json"))
]
ALL = pytest.mark.parametrize("name", PARAMETERS)


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def components(name: str) -> dict[str, tuple[str, str]]:
    """Library and class of every component that the index names and that is there."""
    index = read(CONFIGS / name / "model_index.json")
    return {
        component: (entry[0], entry[1])
        for component, entry in index.items()
        if isinstance(entry, list) and entry != [None, None]
    }


def find_class(library: str, name: str) -> Any:
    return getattr(LIBRARIES[library], name)


def build(folder: Path, library: str, class_name: str) -> torch.nn.Module:
    """The network on the meta device: shapes, and no memory."""
    network = find_class(library, class_name)
    with torch.device("meta"):
        if library == "diffusers":
            built = network.from_config(read(folder / "config.json"))
        else:
            built = network(network.config_class.from_pretrained(folder))
    assert isinstance(built, torch.nn.Module)
    return built


def test_every_folder_is_checked() -> None:
    assert {folder.name for folder in CONFIGS.iterdir()} == PARAMETERS.keys()


def test_nothing_but_configs_is_shipped() -> None:
    files = {path.name for path in CONFIGS.rglob("*") if path.is_file()}
    assert files == {
        "config.json",
        "model_index.json",
        "scheduler_config.json",
        "tokenizer_config.json",
    }


@ALL
def test_the_index_names_what_is_there(name: str) -> None:
    folders = {path.name for path in (CONFIGS / name).iterdir() if path.is_dir()}
    assert components(name).keys() == folders
    networks = {path.parent.name for path in (CONFIGS / name).glob("*/config.json")}
    assert PARAMETERS[name].keys() == networks


@ALL
def test_the_index_names_classes_that_exist(name: str) -> None:
    pipeline = find_class("diffusers", read(CONFIGS / name / "model_index.json")["_class_name"])
    needed = inspect.signature(pipeline).parameters.values()
    required = {parameter.name for parameter in needed if parameter.default is parameter.empty}
    null = {"safety_checker", "feature_extractor"}
    assert required - null <= components(name).keys()
    for library, class_name in components(name).values():
        assert inspect.isclass(find_class(library, class_name))


@pytest.mark.parametrize(("name", "component"), NETWORKS)
def test_a_network_has_the_published_number_of_parameters(name: str, component: str) -> None:
    library, class_name = components(name)[component]
    network = build(CONFIGS / name / component, library, class_name)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert {class_name: count} == PARAMETERS[name][component]


@pytest.mark.parametrize(("name", "component"), NETWORKS)
def test_a_network_knows_every_value_of_its_config(name: str, component: str) -> None:
    library, class_name = components(name)[component]
    config = read(CONFIGS / name / component / "config.json")
    network = find_class(library, class_name)
    if library == "diffusers":
        assert config.pop("_class_name") == class_name
        assert config.keys() <= inspect.signature(network).parameters.keys()
    else:
        assert config["model_type"] == network.config_class.model_type


@ALL
def test_the_scheduler_makes_timesteps(name: str) -> None:
    config = read(CONFIGS / name / "scheduler" / "scheduler_config.json")
    assert components(name)["scheduler"] == ("diffusers", config["_class_name"])
    scheduler = find_class("diffusers", config["_class_name"]).from_config(config)
    dynamic = scheduler.config.get("use_dynamic_shifting", False)
    scheduler.set_timesteps(4, **({"mu": 0.8} if dynamic else {}))
    timesteps = scheduler.timesteps.tolist()
    assert len(timesteps) >= 4
    assert timesteps == sorted(timesteps, reverse=True)
    assert 0 <= timesteps[-1] < timesteps[0] <= 1000


@pytest.mark.parametrize("path", TOKENIZERS)
def test_a_tokenizer_names_its_class_and_length(path: Path) -> None:
    config = read(path)
    assert inspect.isclass(find_class("transformers", config["tokenizer_class"]))
    named = components(path.parent.parent.name)[path.parent.name][1]
    assert named.removesuffix("Fast") == config["tokenizer_class"]
    assert config["model_max_length"] >= 77
