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

from chairlift.card import Defaults, Guidance, Limits
from chairlift.errors import ModelError
from chairlift.models.adapter import Conditioning, ForwardBatch, to_pixels
from chairlift.models.checkpoint import Checkpoint
from chairlift.models.family import MAX_STEPS, Family
from chairlift.models.unet import default_sampler, guide
from chairlift.request import GenerationRequest
from chairlift.sampling.schedule import DIFFUSION_SAMPLERS, Schedule, diffusion_schedule
from chairlift.scheduling.batch_key import BatchKey


class StableDiffusion(Family):
    """The adapter. See :class:`chairlift.models.adapter.Adapter`."""

    classes: ClassVar = {
        "tokenizer": CLIPTokenizer,
        "text_encoder": CLIPTextModel,
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
    }
    denoisers = ("unet",)

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        parts = checkpoint.parts
        self._tokenizer = parts["tokenizer"]
        self._text_encoder = parts["text_encoder"]
        self._unet = parts["unet"].to(memory_format=torch.channels_last)
        self._vae = parts["vae"].to(memory_format=torch.channels_last)
        if self._unet.config.time_cond_proj_dim is not None:
            raise ModelError(f"{checkpoint.source.name}: LCM (guidance-distilled) is not supported")
        self._scale = 2 ** (len(self._vae.config.block_out_channels) - 1)
        side = int(self._unet.config.sample_size) * self._scale
        self.card = self.create_card(
            defaults=Defaults(
                width=side,
                height=side,
                steps=30,
                guidance_scale=7.5,
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

    def schedule(self, request: GenerationRequest) -> Schedule:
        config = self._checkpoint.scheduler_config
        return diffusion_schedule(request.sampler, request.steps, config)

    def denoise(self, batch: ForwardBatch) -> Tensor:
        output = self._unet(
            batch.latents.contiguous(memory_format=torch.channels_last),
            batch.timesteps,
            encoder_hidden_states=batch.conditioning["text"],
            return_dict=False,
        )[0]
        return guide(output.contiguous(), batch)

    def decode_latents(self, latents: Tensor) -> Tensor:
        latents = (latents.to(self.dtype) / self._vae.config.scaling_factor).contiguous(
            memory_format=torch.channels_last
        )
        return to_pixels(self._vae.decode(latents, return_dict=False)[0])
