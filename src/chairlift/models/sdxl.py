"""Stable Diffusion XL, and every checkpoint of ``StableDiffusionXLPipeline``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from chairlift.card import Defaults, Guidance, Limits
from chairlift.errors import ModelError
from chairlift.models.adapter import Conditioning, ForwardBatch, to_pixels
from chairlift.models.checkpoint import Checkpoint
from chairlift.models.family import MAX_STEPS, Family
from chairlift.models.unet import default_sampler, guide
from chairlift.request import GenerationRequest
from chairlift.sampling.schedule import DIFFUSION_SAMPLERS, Schedule, diffusion_schedule
from chairlift.scheduling.batch_key import BatchKey


class StableDiffusionXL(Family):
    """The adapter. See :class:`chairlift.models.adapter.Adapter`."""

    classes: ClassVar = {
        "tokenizer": CLIPTokenizer,
        "tokenizer_2": CLIPTokenizer,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
    }
    denoisers = ("unet",)

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        parts = checkpoint.parts
        self._tokenizers = (parts["tokenizer"], parts["tokenizer_2"])
        self._text_encoders = (parts["text_encoder"], parts["text_encoder_2"])
        self._unet = parts["unet"].to(memory_format=torch.channels_last)
        self._vae = parts["vae"].to(memory_format=torch.channels_last)
        if self._unet.config.time_cond_proj_dim is not None:
            raise ModelError(f"{checkpoint.source.name}: LCM (guidance-distilled) is not supported")
        if self.dtype == torch.float16 and self._vae.config.force_upcast:
            # It overflows in float16. The stock pipeline converts it at every decode and back.
            self._vae = self._vae.float()
        self._zero_negative = checkpoint.source.index.get("force_zeros_for_empty_prompt", True)
        self._scale = 2 ** (len(self._vae.config.block_out_channels) - 1)
        side = int(self._unet.config.sample_size) * self._scale
        self.card = self.create_card(
            defaults=Defaults(
                width=side,
                height=side,
                steps=30,
                guidance_scale=5.0,
                sampler=default_sampler(checkpoint.scheduler_config),
            ),
            limits=Limits(
                # The stock pipeline refuses sides that aren't multiples of 8.
                size_multiple=max(8, self._scale),
                max_pixels=4 * side * side,
                max_steps=MAX_STEPS,
            ),
            samplers=DIFFUSION_SAMPLERS,
            guidance=Guidance(options=("guidance_rescale",)),
        )

    def batch_key(self, request: GenerationRequest) -> BatchKey:
        height, width = request.height // self._scale, request.width // self._scale
        return BatchKey(self.card.id, (self._unet.config.in_channels, height, width), "text")

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

    def schedule(self, request: GenerationRequest) -> Schedule:
        config = self._checkpoint.scheduler_config
        return diffusion_schedule(request.sampler, request.steps, config)

    def denoise(self, batch: ForwardBatch) -> Tensor:
        output = self._unet(
            batch.latents.contiguous(memory_format=torch.channels_last),
            batch.timesteps,
            encoder_hidden_states=batch.conditioning["text"],
            added_cond_kwargs={
                "text_embeds": batch.conditioning["pooled"],
                "time_ids": batch.conditioning["time_ids"],
            },
            return_dict=False,
        )[0]
        return guide(output.contiguous(), batch)

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
