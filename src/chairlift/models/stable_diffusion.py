"""Stable Diffusion 1.x and 2.x, and every checkpoint of ``StableDiffusionPipeline``.

The bundled model is one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from chairlift.models.adapter import Conditioning, ForwardBatch, to_pixels
from chairlift.models.checkpoint import Checkpoint
from chairlift.models.unet import UNetFamily
from chairlift.request import GenerationRequest


class StableDiffusion(UNetFamily):
    """The adapter. See :class:`chairlift.models.adapter.Adapter`."""

    classes: ClassVar = {
        "tokenizer": CLIPTokenizer,
        "text_encoder": CLIPTextModel,
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
    }

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint, guidance_scale=7.5)
        self._tokenizer = checkpoint.parts["tokenizer"]
        self._text_encoder = checkpoint.parts["text_encoder"]

    def encode_texts(self, texts: Sequence[str | None]) -> list[Conditioning]:
        tokens = self._tokenizer(
            [text or "" for text in texts],
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)
        # Only some text encoders of Stable Diffusion 2 say that they want the mask.
        use_mask = getattr(self._text_encoder.config, "use_attention_mask", False)
        hidden = self._text_encoder(
            tokens.input_ids, attention_mask=tokens.attention_mask if use_mask else None
        ).last_hidden_state
        return [Conditioning({"text": row.clone()}) for row in hidden]

    def row_conditioning(self, request: GenerationRequest) -> Mapping[str, Tensor]:
        return {"guidance_rescale": torch.tensor(request.guidance_rescale)}

    def forward(self, batch: ForwardBatch) -> Tensor:
        return self.predict_noise(batch)

    def decode_latents(self, latents: Tensor) -> Tensor:
        latents = (latents.to(self.dtype) / self._vae.config.scaling_factor).contiguous(
            memory_format=torch.channels_last
        )
        return to_pixels(self._vae.decode(latents, return_dict=False)[0])
