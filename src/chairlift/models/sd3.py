"""Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from chairlift.card import Defaults, Guidance, Limits
from chairlift.errors import ModelError
from chairlift.models.adapter import Conditioning, ForwardBatch, to_pixels
from chairlift.models.checkpoint import Checkpoint
from chairlift.models.family import MAX_STEPS, Family
from chairlift.models.flow import calculate_mu, default_flow_sampler
from chairlift.request import GenerationRequest
from chairlift.sampling.schedule import FLOW_SAMPLERS, Schedule, flow_schedule
from chairlift.scheduling.batch_key import BatchKey

T5_TOKENS = 256


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """A text encoder with its tokenizer."""

    tokenizer: Any
    network: Any
    device: torch.device

    def __call__(self, prompts: Sequence[str], length: int, **options: Any) -> Any:
        """The network's output for ``length`` tokens, of which padding isn't masked."""
        tokens = self.tokenizer(
            prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return self.network(tokens.input_ids.to(self.device), **options)


class StableDiffusion3(Family):
    """The adapter. See :class:`chairlift.models.adapter.Adapter`.

    A checkpoint may lack text encoders, but not all. Without T5 its tokens are zeros, as in the
    stock pipeline. That one can't do without a CLIP; here the missing one's hidden states and
    pooled embedding are zeros, as wide as the rest of ``pooled_projection_dim`` (both are of one
    width in Stable Diffusion 3). Without either CLIP, the pooled embedding is zeros and T5's are
    the only tokens.
    """

    classes: ClassVar = {
        "tokenizer": CLIPTokenizer,
        "tokenizer_2": CLIPTokenizer,
        "tokenizer_3": T5Tokenizer,
        "text_encoder": CLIPTextModelWithProjection,
        "text_encoder_2": CLIPTextModelWithProjection,
        "text_encoder_3": T5EncoderModel,
        "transformer": SD3Transformer2DModel,
        "vae": AutoencoderKL,
    }
    optional = frozenset(name for name in classes if name.startswith(("tokenizer", "text_encoder")))

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        parts = checkpoint.parts
        self._transformer = parts["transformer"]
        self._vae = parts["vae"].to(memory_format=torch.channels_last)
        self._clips = (self._text_encoder(""), self._text_encoder("_2"))
        self._t5 = self._text_encoder("_3")
        clips = [clip for clip in self._clips if clip is not None]
        if not clips and self._t5 is None:
            raise ModelError(f"{checkpoint.source.name}: it has no text encoder")
        config = self._transformer.config
        self._clip_tokens = clips[0].tokenizer.model_max_length if clips else 0
        widths = sum(clip.network.config.projection_dim for clip in clips)
        self._missing_width = config.pooled_projection_dim - widths
        if self._missing_width < 0 or (len(clips) == 2 and self._missing_width):
            raise ModelError(
                f"{checkpoint.source.name}: pooled_projection_dim is "
                f"{config.pooled_projection_dim}; the text encoders make {widths}"
            )
        self._scale = 2 ** (len(self._vae.config.block_out_channels) - 1)
        side = int(config.sample_size) * self._scale
        multiple = self._scale * int(config.patch_size)
        positions = config.pos_embed_max_size
        self.card = self.create_card(
            defaults=Defaults(
                width=side,
                height=side,
                steps=28,
                guidance_scale=7.0,
                sampler=default_flow_sampler(checkpoint.scheduler_config),
            ),
            limits=Limits(
                size_multiple=multiple,
                max_pixels=4 * side * side,
                max_steps=MAX_STEPS,
                max_side=positions * multiple if positions else None,
            ),
            samplers=FLOW_SAMPLERS,
            guidance=Guidance(),
        )

    def batch_key(self, request: GenerationRequest) -> BatchKey:
        height, width = request.height // self._scale, request.width // self._scale
        return BatchKey(self.card.id, (self._transformer.config.in_channels, height, width), "text")

    def encode_texts(self, texts: Sequence[str | None]) -> list[Conditioning]:
        """As :meth:`Family.encode_texts`. CLIP's tokens, whose channels are those of the first and
        of the second, precede T5's; what nobody fills stays zero.
        """
        prompts = [text or "" for text in texts]
        config, clip_tokens = self._transformer.config, self._clip_tokens
        shape = (len(prompts), clip_tokens + T5_TOKENS, config.joint_attention_dim)
        hidden = torch.zeros(shape, dtype=self.dtype, device=self.device)
        pooled = hidden.new_zeros(len(prompts), config.pooled_projection_dim)
        channel = pooled_channel = 0
        for clip in self._clips:
            if clip is None:
                channel += self._missing_width
                pooled_channel += self._missing_width
                continue
            encoded = clip(prompts, clip_tokens, output_hidden_states=True)
            states, vectors = encoded.hidden_states[-2], encoded.text_embeds
            hidden[:, :clip_tokens, channel : channel + states.shape[-1]] = states
            pooled[:, pooled_channel : pooled_channel + vectors.shape[-1]] = vectors
            channel += states.shape[-1]
            pooled_channel += vectors.shape[-1]
        if self._t5 is not None:
            hidden[:, clip_tokens:] = self._t5(prompts, T5_TOKENS).last_hidden_state
        return [
            Conditioning({"text": text.clone(), "pooled": vector.clone()})
            for text, vector in zip(hidden, pooled, strict=True)
        ]

    def schedule(self, request: GenerationRequest) -> Schedule:
        config = self._checkpoint.scheduler_config
        side = self.card.limits.size_multiple
        image_tokens = (request.height // side) * (request.width // side)
        mu = calculate_mu(config, image_tokens, max_shift_default=1.16)
        return flow_schedule(request.sampler, request.steps, config, mu)

    def forward(self, batch: ForwardBatch) -> Tensor:
        output: Tensor = self._transformer(
            hidden_states=batch.latents,
            timestep=batch.timesteps,
            encoder_hidden_states=batch.conditioning["text"],
            pooled_projections=batch.conditioning["pooled"],
            return_dict=False,
        )[0]
        return output

    def decode_latents(self, latents: Tensor) -> Tensor:
        config = self._vae.config
        latents = latents.to(self.dtype) / config.scaling_factor + config.shift_factor
        latents = latents.contiguous(memory_format=torch.channels_last)
        return to_pixels(self._vae.decode(latents, return_dict=False)[0])

    def _text_encoder(self, suffix: str) -> TextEncoder | None:
        parts = self._checkpoint.parts
        tokenizer, network = parts[f"tokenizer{suffix}"], parts[f"text_encoder{suffix}"]
        if network is None:
            return None
        if tokenizer is None:
            name = self._checkpoint.source.name
            raise ModelError(f"{name}: text_encoder{suffix} has no tokenizer{suffix}")
        return TextEncoder(tokenizer, network, self.device)
