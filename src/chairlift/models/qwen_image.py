"""Qwen-Image, and every checkpoint of ``QwenImagePipeline``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from chairlift.card import Defaults, Guidance, Limits
from chairlift.models.adapter import Conditioning, ForwardBatch, combine_guidance, to_pixels
from chairlift.models.checkpoint import Checkpoint
from chairlift.models.family import MAX_STEPS, Family
from chairlift.models.flow import calculate_mu, default_flow_sampler, pack, unpack
from chairlift.request import GenerationRequest
from chairlift.sampling.schedule import FLOW_SAMPLERS, Schedule, flow_schedule
from chairlift.scheduling.batch_key import BatchKey

TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, "
    "quantity, text, spatial relationships of the objects and background:<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
TEMPLATE_TOKENS = 34
"""Those before the prompt, which the transformer doesn't see."""
MAX_TOKENS = 512
LATENT_SIDE = 128
"""Of the default picture, as in the stock pipeline."""
POSITIONS = 4096
"""Of the transformer, to each side of a picture's centre. The text's follow the picture's."""


class QwenImage(Family):
    """The adapter. See :class:`chairlift.models.adapter.Adapter`."""

    classes: ClassVar = {
        "tokenizer": Qwen2Tokenizer,
        "text_encoder": Qwen2_5_VLForConditionalGeneration,
        "transformer": QwenImageTransformer2DModel,
        "vae": AutoencoderKLQwenImage,
    }

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        parts = checkpoint.parts
        self._tokenizer = parts["tokenizer"]
        # Only its hidden states are read; what sees and what speaks would take 2.4 GB.
        self._language_model = parts["text_encoder"].model.language_model
        del parts["text_encoder"].model.visual, parts["text_encoder"].lm_head
        self._transformer = parts["transformer"]
        self._vae = parts["vae"]
        self._scale = 2 ** len(self._vae.config.temperal_downsample)
        side = LATENT_SIDE * self._scale
        self.card = self.create_card(
            defaults=Defaults(
                width=side,
                height=side,
                steps=50,
                guidance_scale=0.0,
                true_cfg_scale=4.0,
                sampler=default_flow_sampler(checkpoint.scheduler_config),
            ),
            limits=Limits(
                size_multiple=2 * self._scale,
                max_pixels=4 * side * side,
                max_steps=MAX_STEPS,
                max_side=2 * (POSITIONS - MAX_TOKENS) * 2 * self._scale,
            ),
            samplers=FLOW_SAMPLERS,
            guidance=Guidance(cfg_field="true_cfg_scale"),
        )

    def batch_key(self, request: GenerationRequest) -> BatchKey:
        height, width = request.height // self._scale, request.width // self._scale
        channels = self._transformer.config.in_channels // 4
        return BatchKey(self.card.id, (channels, height, width), "text")

    def encode_texts(self, texts: Sequence[str | None]) -> list[Conditioning]:
        # Each by itself: in bfloat16, padding to a neighbour's length changes the last bits.
        return [Conditioning(sequences={"text": self._encode(text or "")}) for text in texts]

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
        text = batch.sequences["text"]
        output = self._transformer(
            hidden_states=pack(batch.latents),
            timestep=batch.timesteps.to(self.dtype) / 1000,
            encoder_hidden_states=text.values,
            encoder_hidden_states_mask=text.mask,
            img_shapes=[[(1, height // 2, width // 2)]] * len(batch.latents),
            return_dict=False,
        )[0]
        return unpack(output, height, width)

    def guide(self, output: Tensor, batch: ForwardBatch) -> Tensor:
        return guide(output, batch)

    def decode_latents(self, latents: Tensor) -> Tensor:
        config = self._vae.config
        mean, std = (
            torch.tensor(values, device=self.device).view(-1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )
        frames = (latents * std + mean).to(self.dtype).unsqueeze(2)
        return to_pixels(self._vae.decode(frames, return_dict=False)[0].squeeze(2))

    def _encode(self, text: str) -> Tensor:
        """``(tokens, width)``: the text's hidden states."""
        tokens = self._tokenizer(
            [TEMPLATE.format(text)],
            max_length=TEMPLATE_TOKENS + MAX_TOKENS,
            truncation=True,
            return_tensors="pt",
        )
        output = self._language_model(tokens.input_ids.to(self.device), use_cache=False)
        hidden: Tensor = output.last_hidden_state[0, TEMPLATE_TOKENS:]
        return hidden.clone()


def guide(output: Tensor, batch: ForwardBatch) -> Tensor:
    """Classifier-free guidance, after which each token of a guided row gets the norm that it has
    on the positive side.

    Args:
        output: ``(guided + rows, …)``, the denoiser's output for ``batch``.

    Returns:
        ``(rows, …)``, float32.
    """
    height, width = output.shape[2:]

    def keep_norm(guided: Tensor, positive: Tensor) -> Tensor:
        guided, positive = pack(guided), pack(positive)
        norms = torch.linalg.vector_norm(positive, dim=-1, keepdim=True)
        guided = guided * (norms / torch.linalg.vector_norm(guided, dim=-1, keepdim=True))
        return unpack(guided, height, width)

    return combine_guidance(output, batch, keep_norm)
