"""Stable Diffusion XL, and every checkpoint of ``StableDiffusionXLPipeline``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from chairlift.models.adapter import Conditioning, ForwardBatch, to_pixels
from chairlift.models.checkpoint import Checkpoint
from chairlift.models.unet import UNetFamily
from chairlift.request import GenerationRequest


class StableDiffusionXL(UNetFamily):
    """The adapter. See :class:`chairlift.models.adapter.Adapter`."""

    classes: ClassVar = {
        "tokenizer": CLIPTokenizer,
        "tokenizer_2": CLIPTokenizer,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
    }

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint, guidance_scale=5.0)
        parts = checkpoint.parts
        self._tokenizers = (parts["tokenizer"], parts["tokenizer_2"])
        self._text_encoders = (parts["text_encoder"], parts["text_encoder_2"])
        if self.dtype == torch.float16 and self._vae.config.force_upcast:
            # It overflows in float16. The stock pipeline converts it at every decode and back.
            self._vae = self._vae.float()
            self.card = replace(self.card, components=checkpoint.components())
        self._zero_negative = checkpoint.source.index.get("force_zeros_for_empty_prompt", True)

    def encode_texts(self, texts: Sequence[str | None]) -> list[Conditioning]:
        """As :meth:`Family.encode_texts`. The checkpoint says whether a negative prompt that
        wasn't given is zeros or an empty prompt; one that is given, even empty, is never zeros.
        """
        states = []
        # None is encoded too: a LoRA's scales belong to the rows of the encoders' forward.
        for tokenizer, encoder in zip(self._tokenizers, self._text_encoders, strict=True):
            tokens = tokenizer(
                [text or "" for text in texts],
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).to(self.device)
            encoded = encoder(tokens.input_ids, output_hidden_states=True)
            states.append(encoded.hidden_states[-2])
        hidden, pooled = torch.cat(states, dim=-1), encoded.text_embeds
        if self._zero_negative:
            missing = [index for index, text in enumerate(texts) if text is None]
            hidden[missing], pooled[missing] = 0, 0
        return [
            Conditioning({"text": text.clone(), "pooled": vector.clone()})
            for text, vector in zip(hidden, pooled, strict=True)
        ]

    def row_conditioning(self, request: GenerationRequest) -> Mapping[str, Tensor]:
        size = (request.height, request.width)
        # Original size, top left corner of the crop, target size.
        time_ids = torch.tensor([*size, 0, 0, *size], dtype=self.dtype)
        return {
            "time_ids": time_ids,
            "guidance_rescale": torch.tensor(request.guidance_rescale),
        }

    def forward(self, batch: ForwardBatch) -> Tensor:
        names = {"text_embeds": "pooled", "time_ids": "time_ids"}
        return self.predict_noise(
            batch, {name: batch.conditioning[source] for name, source in names.items()}
        )

    def decode_latents(self, latents: Tensor) -> Tensor:
        config = self._vae.config
        latents = latents.to(self._vae.dtype)
        if config.latents_mean is not None and config.latents_std is not None:
            mean = latents.new_tensor(config.latents_mean).view(-1, 1, 1)
            std = latents.new_tensor(config.latents_std).view(-1, 1, 1)
            latents = latents * std / config.scaling_factor + mean
        else:
            latents = latents / config.scaling_factor
        latents = latents.contiguous(memory_format=torch.channels_last)
        return to_pixels(self._vae.decode(latents, return_dict=False)[0])
