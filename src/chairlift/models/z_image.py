"""Z-Image and Z-Image-Turbo, and every checkpoint of ``ZImagePipeline``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen3Model

from chairlift.card import Defaults, Guidance, Limits
from chairlift.models.adapter import Conditioning, ForwardBatch, combine_guidance, to_pixels
from chairlift.models.checkpoint import Checkpoint
from chairlift.models.family import MAX_STEPS, Family
from chairlift.models.flow import calculate_mu, default_flow_sampler
from chairlift.request import GenerationRequest
from chairlift.sampling.schedule import FLOW_SAMPLERS, Schedule, flow_schedule
from chairlift.scheduling.batch_key import BatchKey

MAX_TOKENS = 512
TEXT_MULTIPLE = 32
"""The transformer pads each text to a multiple of this; the picture's positions come after it."""
PATCH = 2
SIDE = 1024
MAX_PIXELS = 2048 * 2048


class ZImage(Family):
    """The adapter. See :class:`chairlift.models.adapter.Adapter`.

    Nothing in a checkpoint tells Z-Image-Turbo, which is distilled to 8 steps without guidance,
    from Z-Image: a model whose name has "turbo" in it, in any case, gets those as its defaults.
    """

    classes: ClassVar = {
        "tokenizer": Qwen2Tokenizer,
        "text_encoder": Qwen3Model,
        "transformer": ZImageTransformer2DModel,
        "vae": AutoencoderKL,
    }
    # They run on the tokens of all rows, one after the other.
    shared_modules = ("cap_embedder", "all_x_embedder")

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.noise_dtype = torch.float32
        parts = checkpoint.parts
        self._tokenizer = parts["tokenizer"]
        self._text_encoder = parts["text_encoder"]
        self._transformer = parts["transformer"]
        self._vae = parts["vae"].to(memory_format=torch.channels_last)
        self._scale = 2 ** (len(self._vae.config.block_out_channels) - 1)
        text_positions, *side_positions = self._transformer.config.axes_lens
        # Positions of texts start at 1, and the picture has the one after them.
        longest = (text_positions - 2) // TEXT_MULTIPLE * TEXT_MULTIPLE
        self._max_tokens = min(MAX_TOKENS, longest)
        max_side = min(side_positions) * PATCH * self._scale
        turbo = "turbo" in checkpoint.source.name.lower()
        self.card = self.create_card(
            defaults=Defaults(
                width=min(SIDE, max_side),
                height=min(SIDE, max_side),
                steps=8 if turbo else 50,
                guidance_scale=0.0 if turbo else 5.0,
                sampler=default_flow_sampler(checkpoint.scheduler_config),
            ),
            limits=Limits(
                size_multiple=self._scale * PATCH,
                max_pixels=MAX_PIXELS,
                max_steps=MAX_STEPS,
                max_side=max_side,
            ),
            samplers=FLOW_SAMPLERS,
            # The stock pipeline adds guidance_scale * (positive - negative) to the positive side.
            guidance=Guidance(cfg_offset=1.0, options=("cfg_truncation", "cfg_normalization")),
        )

    def batch_key(self, request: GenerationRequest) -> BatchKey:
        height, width = request.height // self._scale, request.width // self._scale
        channels = self._transformer.config.in_channels
        return BatchKey(self.card.id, (channels, height, width), "text")

    def cfg_scales(self, request: GenerationRequest, schedule: Schedule) -> NDArray[np.float32]:
        scales = super().cfg_scales(request, schedule)
        # In float32, to fall on the same side of cfg_truncation as in the stock pipeline.
        way = (1000 - torch.from_numpy(schedule.timesteps).float()) / 1000
        scales[way.double().numpy() > request.cfg_truncation] = 1.0
        return scales

    def encode_texts(self, texts: Sequence[str | None]) -> list[Conditioning]:
        prompts = [
            self._tokenizer.apply_chat_template(
                [{"role": "user", "content": text or ""}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=True,
            )
            for text in texts
        ]
        tokens = self._tokenizer(
            prompts,
            padding="max_length",
            max_length=self._max_tokens,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)
        mask = tokens.attention_mask.bool()
        hidden = self._text_encoder(
            input_ids=tokens.input_ids, attention_mask=mask, output_hidden_states=True
        ).hidden_states[-2]
        return [
            Conditioning(sequences={"text": row[kept]})
            for row, kept in zip(hidden, mask, strict=True)
        ]

    def row_conditioning(self, request: GenerationRequest) -> Mapping[str, Tensor]:
        return {"cfg_normalization": torch.tensor(request.cfg_normalization)}

    def schedule(self, request: GenerationRequest) -> Schedule:
        config = self._checkpoint.scheduler_config
        token_side = self._scale * PATCH
        tokens = (request.height // token_side) * (request.width // token_side)
        return flow_schedule(
            request.sampler,
            request.steps,
            config,
            mu=calculate_mu(config, tokens),
            sigmas=torch.linspace(1.0, 1 / request.steps, request.steps).tolist(),
        )

    def forward(self, batch: ForwardBatch) -> Tensor:
        # A list, since the transformer lays each row's positions behind its own text.
        outputs = self._transformer(
            list(batch.latents.unsqueeze(2).unbind()),
            (1000 - batch.timesteps) / 1000,
            batch.sequences["text"].unpad(),
            return_dict=False,
        )[0]
        return -torch.stack(outputs).squeeze(2)

    def guide(self, output: Tensor, batch: ForwardBatch) -> Tensor:
        return guide(output, batch)

    def decode_latents(self, latents: Tensor) -> Tensor:
        config = self._vae.config
        latents = latents.to(self.dtype) / config.scaling_factor + config.shift_factor
        latents = latents.contiguous(memory_format=torch.channels_last)
        return to_pixels(self._vae.decode(latents, return_dict=False)[0])


def guide(output: Tensor, batch: ForwardBatch) -> Tensor:
    """Classifier-free guidance, then a bound on its length by each row's ``cfg_normalization``:
    the norm of the guided output is at most so many times that of the positive side.

    Args:
        output: ``(guided + rows, …)``, the denoiser's output for ``batch``.

    Returns:
        ``(rows, …)``, float32.
    """

    def bound(guided: Tensor, positive: Tensor) -> Tensor:
        dimensions = tuple(range(1, output.dim()))
        norm = torch.linalg.vector_norm(guided, dim=dimensions, keepdim=True)
        factor = batch.of_guided_rows("cfg_normalization")
        most = factor * torch.linalg.vector_norm(positive, dim=dimensions, keepdim=True)
        return torch.where((factor > 0) & (norm > most), guided * (most / norm), guided)

    return combine_guidance(output, batch, bound)
