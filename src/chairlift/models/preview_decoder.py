"""A decoder for previews that the operator names: diffusers' ``AutoencoderTiny``, as TAESD is."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from chairlift.errors import ModelError
from chairlift.models.adapter import to_pixels
from chairlift.models.preview import Previewer, require_shape

MAX_ROWS = 4
"""Decoded together, to bound the memory: it has 64 channels at full size."""


class TinyDecoder(Previewer):
    """Previews by a distilled decoder, as large as it makes them.

    Args:
        network: Takes latents as the denoiser has them, as in diffusers' pipelines: what is left
            of scale and shift its own config says.
    """

    def __init__(self, network: AutoencoderTiny) -> None:
        self._network = network

    @torch.inference_mode()
    def render(self, latents: Tensor) -> Tensor:
        return torch.cat([self._decode(rows) for rows in torch.split(latents, MAX_ROWS)])

    def _decode(self, latents: Tensor) -> Tensor:
        config = self._network.config
        require_shape(latents, config.latent_channels)
        latents = latents.to(self._network.dtype) / config.scaling_factor + config.shift_factor
        return to_pixels(self._network.decode(latents, return_dict=False)[0]).contiguous()


def load_tiny_decoder(
    folder: Path, channels: int, device: torch.device, dtype: torch.dtype
) -> TinyDecoder:
    """Read a preview decoder.

    Args:
        folder: One in diffusers format, with safetensors weights.
        channels: Of the model's latents.
        device: Where the latents will be.
        dtype: The model's.

    Raises:
        ModelError: The folder has no such decoder, or it is another model's.
        Exception: Whatever diffusers makes of a broken file.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"the preview decoder {folder} has no config.json")
    config = AutoencoderTiny.load_config(folder)
    if config.get("_class_name") != "AutoencoderTiny":
        raise ModelError(
            f"the preview decoder {folder} is a {config.get('_class_name')}; it must be an "
            "AutoencoderTiny"
        )
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"the preview decoder {folder} has no safetensors weights")
    network = AutoencoderTiny.from_pretrained(folder, use_safetensors=True, dtype=dtype)
    inputs, outputs = network.config.latent_channels, network.config.out_channels
    if (inputs, outputs) != (channels, 3):
        raise ModelError(
            f"the preview decoder {folder} makes {outputs} colours of latents of {inputs} "
            f"channels; the model's have {channels}"
        )
    del network.encoder
    return TinyDecoder(network.to(device).eval())
