"""FLUX.1 [dev] and [schnell], and every checkpoint of ``FluxPipeline``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from chairlift.card import Defaults, Guidance, Limits
from chairlift.models.adapter import Conditioning, ForwardBatch, to_pixels
from chairlift.models.checkpoint import Checkpoint
from chairlift.models.family import MAX_STEPS, Family
from chairlift.models.flow import calculate_mu, default_flow_sampler, pack, unpack
from chairlift.request import GenerationRequest
from chairlift.sampling.schedule import FLOW_SAMPLERS, Schedule, flow_schedule
from chairlift.scheduling.batch_key import BatchKey

T5_TOKENS = 512
LATENT_SIDE = 128
"""Of the default picture, as in the stock pipeline."""


class Flux(Family):
    """The adapter. See :class:`chairlift.models.adapter.Adapter`."""

    classes: ClassVar = {
        "tokenizer": CLIPTokenizer,
        "tokenizer_2": T5Tokenizer,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": T5EncoderModel,
        "transformer": FluxTransformer2DModel,
        "vae": AutoencoderKL,
    }

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        parts = checkpoint.parts
        self._tokenizer, self._tokenizer_2 = parts["tokenizer"], parts["tokenizer_2"]
        self._clip, self._t5 = parts["text_encoder"], parts["text_encoder_2"]
        self._transformer = parts["transformer"]
        self._vae = parts["vae"].to(memory_format=torch.channels_last)
        self._scale = 2 ** (len(self._vae.config.block_out_channels) - 1)
        self._guidance_embeds = bool(self._transformer.config.guidance_embeds)
        side = LATENT_SIDE * self._scale
        self.card = self.create_card(
            defaults=Defaults(
                width=side,
                height=side,
                # Without embedded guidance it is [schnell], which is distilled to a few steps.
                steps=28 if self._guidance_embeds else 4,
                guidance_scale=3.5 if self._guidance_embeds else 0.0,
                sampler=default_flow_sampler(checkpoint.scheduler_config),
            ),
            limits=Limits(
                size_multiple=2 * self._scale,
                max_pixels=4 * side * side,
                max_steps=MAX_STEPS,
            ),
            samplers=FLOW_SAMPLERS,
            guidance=Guidance(cfg_field="true_cfg_scale", embedded=self._guidance_embeds),
        )

    def batch_key(self, request: GenerationRequest) -> BatchKey:
        height, width = request.height // self._scale, request.width // self._scale
        channels = self._transformer.config.in_channels // 4
        return BatchKey(self.card.id, (channels, height, width), "text")

    def encode_texts(self, texts: Sequence[str | None]) -> list[Conditioning]:
        prompts = [text or "" for text in texts]
        clip_tokens = self._tokenizer(
            prompts,
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        t5_tokens = self._tokenizer_2(
            prompts,
            padding="max_length",
            max_length=T5_TOKENS,
            truncation=True,
            return_tensors="pt",
        )
        pooled = self._clip(clip_tokens.input_ids.to(self.device)).pooler_output
        # T5's padding isn't masked, in T5 or in the transformer: FLUX.1 was trained so.
        hidden = self._t5(t5_tokens.input_ids.to(self.device)).last_hidden_state.to(self.dtype)
        return [
            Conditioning({"text": text.clone(), "pooled": vector.clone()})
            for text, vector in zip(hidden, pooled, strict=True)
        ]

    def row_conditioning(self, request: GenerationRequest) -> Mapping[str, Tensor]:
        if not self._guidance_embeds:
            return {}
        return {"guidance": torch.tensor(request.guidance_scale)}

    def schedule(self, request: GenerationRequest) -> Schedule:
        config, side = self._checkpoint.scheduler_config, 2 * self._scale
        image_tokens = (request.height // side) * (request.width // side)
        return flow_schedule(
            request.sampler,
            request.steps,
            config,
            mu=calculate_mu(config, image_tokens),
            sigmas=np.linspace(1.0, 1 / request.steps, request.steps),
        )

    def forward(self, batch: ForwardBatch) -> Tensor:
        height, width = batch.latents.shape[2:]
        text = batch.conditioning["text"]
        output = self._transformer(
            hidden_states=pack(batch.latents),
            timestep=batch.timesteps.to(self.dtype) / 1000,
            guidance=batch.conditioning.get("guidance"),
            pooled_projections=batch.conditioning["pooled"],
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=self.device),
            img_ids=self._image_ids(height // 2, width // 2),
            return_dict=False,
        )[0]
        return unpack(output, height, width)

    def decode_latents(self, latents: Tensor) -> Tensor:
        config = self._vae.config
        latents = latents.to(self.dtype) / config.scaling_factor + config.shift_factor
        latents = latents.contiguous(memory_format=torch.channels_last)
        return to_pixels(self._vae.decode(latents, return_dict=False)[0])

    def _image_ids(self, height: int, width: int) -> Tensor:
        """``(height * width, 3)``: the position of each token. In float32, since bfloat16, which
        the stock pipeline uses, has no odd numbers above 256.
        """
        ids = torch.zeros(height, width, 3, device=self.device)
        ids[..., 1] = torch.arange(height, device=self.device)[:, None]
        ids[..., 2] = torch.arange(width, device=self.device)
        return ids.flatten(0, 1)
