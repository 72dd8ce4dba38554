"""LoRAs with random weights for the tiny Stable Diffusion."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from tests.models.exactness import load_stock

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def save_lora(
    folder: Path,
    path: Path,
    seed: int,
    modules: Iterable[str] = ATTENTION,
    text_encoder: bool = False,
) -> Path:
    """A LoRA of rank 3 and alpha 6 with random weights, in diffusers' format."""
    torch.manual_seed(seed)
    pipeline = load_stock(folder)
    layers = {"unet_lora_layers": trained(pipeline.unet, modules)}
    if text_encoder:
        layers["text_encoder_lora_layers"] = trained(pipeline.text_encoder, ["q_proj", "v_proj"])
    # The older names, which files of these models have.
    layers = {name: convert_state_dict_to_diffusers(state) for name, state in layers.items()}
    StableDiffusionPipeline.save_lora_weights(path, **layers)
    return path / "pytorch_lora_weights.safetensors"


def trained(network: Any, modules: Iterable[str]) -> dict[str, torch.Tensor]:
    """A LoRA's weights for these modules of a network, by PEFT's names."""
    network.add_adapter(LoraConfig(r=3, lora_alpha=6, target_modules=list(modules)))
    for name, weights in network.named_parameters():
        if "lora_" in name:
            weights.data.normal_(std=0.2)
    state: dict[str, torch.Tensor] = get_peft_model_state_dict(network)
    return state
