"""Wan 2.1 and 2.2, text to video, and every checkpoint of ``WanPipeline``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from numpy.typing import NDArray
from torch import Tensor
from transformers import T5Tokenizer, UMT5EncoderModel

from chairlift.card import Defaults, Guidance, Limits
from chairlift.errors import ConfigurationError, ModelError
from chairlift.models.adapter import Conditioning, ForwardBatch, to_pixels
from chairlift.models.checkpoint import Checkpoint
from chairlift.models.family import MAX_STEPS, Family
from chairlift.models.flow import default_flow_sampler
from chairlift.request import GenerationRequest
from chairlift.sampling.schedule import FLOW_SAMPLERS, Schedule, flow_schedule
from chairlift.scheduling.batch_key import BatchKey
from chairlift.scheduling.work import Leg

MAX_TOKENS = 512
MAX_FRAMES = 161
MAX_PIXELS = 1280 * 720
STOCK_MULTIPLE = 16
"""The stock pipeline refuses sides that aren't multiples of this."""


class Wan(Family):
    """The adapter. See :class:`chairlift.models.adapter.Adapter`.

    Wan 2.2 A14B has two experts: ``transformer`` for the timesteps from a boundary on upwards,
    ``transformer_2`` for those below. Which one evaluates a row is a part of its batch key, and the
    row changes its group where it crosses the boundary.
    """

    classes: ClassVar = {
        "tokenizer": T5Tokenizer,
        "text_encoder": UMT5EncoderModel,
        "transformer": WanTransformer3DModel,
        "transformer_2": WanTransformer3DModel,
        "vae": AutoencoderKLWan,
    }
    optional = frozenset({"transformer", "transformer_2"})
    denoisers = ("transformer", "transformer_2")
    max_decode_rows = 1

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.noise_dtype = torch.float32
        parts = checkpoint.parts
        self._tokenizer = parts["tokenizer"]
        self._text_encoder = parts["text_encoder"]
        self._vae = parts["vae"]
        self._boundary = _find_boundary(checkpoint)
        self._config = (parts["transformer"] or parts["transformer_2"]).config
        self._mean, self._inverse_std = self._latent_statistics()
        experts = checkpoint.source.index.get("boundary_ratio") is not None
        self.card = self.create_card(
            defaults=self._defaults(),
            limits=self._limits(),
            samplers=FLOW_SAMPLERS,
            guidance=Guidance(options=("guidance_scale_2",) if experts else ()),
        )

    @classmethod
    def require_packages(cls) -> None:
        try:
            import av  # noqa: F401
        except ImportError:
            reason = "videos need PyAV: pip install 'chairlift[video]'"
            raise ConfigurationError(reason) from None

    def batch_key(self, request: GenerationRequest) -> BatchKey:
        """That of the denoiser for high noise; see :meth:`legs`."""
        frames = (request.frames - 1) // self._vae.config.scale_factor_temporal + 1
        scale = self._vae.config.scale_factor_spatial
        shape = (self._config.in_channels, frames, request.height // scale, request.width // scale)
        return BatchKey(self.denoisers[0], shape, "text")

    def legs(self, request: GenerationRequest, schedule: Schedule) -> tuple[Leg, ...]:
        high = int(self._is_high_noise(schedule).sum())
        key = self.batch_key(request)
        counts = zip(self.denoisers, (high, schedule.evaluations - high), strict=True)
        return tuple(Leg(replace(key, model=name), count) for name, count in counts if count)

    def cfg_scales(self, request: GenerationRequest, schedule: Schedule) -> NDArray[np.float32]:
        scales = super().cfg_scales(request, schedule)
        # As in the stock pipeline, guidance_scale alone decides whether there is guidance.
        if request.cfg_scale > 1 and request.guidance_scale_2 is not None:
            scales[~self._is_high_noise(schedule)] = request.guidance_scale_2
        return scales

    def encode_texts(self, texts: Sequence[str | None]) -> list[Conditioning]:
        tokens = self._tokenizer(
            [prompt_clean(text or "") for text in texts],
            padding="max_length",
            max_length=MAX_TOKENS,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self.device)
        mask = tokens.attention_mask
        hidden = self._text_encoder(tokens.input_ids, mask).last_hidden_state
        # The transformer has no mask: past a text's end it reads zeros.
        hidden = hidden.masked_fill(mask[..., None] == 0, 0).to(self.dtype)
        return [Conditioning({"text": row.clone()}) for row in hidden]

    def schedule(self, request: GenerationRequest) -> Schedule:
        return flow_schedule(request.sampler, request.steps, self._checkpoint.scheduler_config)

    def forward(self, batch: ForwardBatch) -> Tensor:
        # Where expand_timesteps is set (Wan 2.2 TI2V-5B), the stock pipeline repeats the timestep
        # for every token, since those of a given picture have others. In text to video all are
        # equal, and one for each row gives the same without an embedding for each token.
        output: Tensor = self._checkpoint.parts[batch.key.model](
            batch.latents,
            batch.timesteps,
            encoder_hidden_states=batch.conditioning["text"],
            return_dict=False,
        )[0]
        return output

    def decode_latents(self, latents: Tensor) -> Tensor:
        latents = latents.to(self.dtype) / self._inverse_std + self._mean
        return to_pixels(self._vae.decode(latents, return_dict=False)[0])

    def _is_high_noise(self, schedule: Schedule) -> NDArray[np.bool_]:
        """``(evaluations,)``: where the first expert evaluates. In float32, to fall on the same
        side of the boundary as in the stock pipeline.
        """
        return schedule.timesteps.astype(np.float32) >= np.float32(self._boundary)

    def _latent_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and inverse standard deviation of the VAE's latents, ``(channels, 1, 1, 1)``, in
        the VAE's type, in which the stock pipeline divides too.
        """
        config = self._vae.config
        mean, std = (
            torch.tensor(values).view(-1, 1, 1, 1).to(self.device, self.dtype)
            for values in (config.latents_mean, config.latents_std)
        )
        return mean, 1.0 / std

    def _defaults(self) -> Defaults:
        defaults = Defaults(
            width=832,
            height=480,
            steps=50,
            guidance_scale=5.0,
            sampler=default_flow_sampler(self._checkpoint.scheduler_config),
            frames=81,
            frames_per_second=16,
        )
        if self._checkpoint.source.index.get("expand_timesteps"):
            # TI2V-5B is made for five seconds of 720p at 24 frames a second.
            return replace(defaults, width=1280, height=704, frames=121, frames_per_second=24)
        return defaults

    def _limits(self) -> Limits:
        scale, frame_scale = (
            self._vae.config.scale_factor_spatial,
            self._vae.config.scale_factor_temporal,
        )
        patch_frames, *patch = self._config.patch_size
        positions = self._config.rope_max_seq_len
        return Limits(
            size_multiple=math.lcm(STOCK_MULTIPLE, *(scale * side for side in patch)),
            max_pixels=MAX_PIXELS,
            max_steps=MAX_STEPS,
            max_side=positions * min(patch) * scale,
            max_frames=min(MAX_FRAMES, (positions * patch_frames - 1) * frame_scale + 1),
            frame_multiple=frame_scale,
        )


def _find_boundary(checkpoint: Checkpoint) -> float:
    """The lowest timestep of the first expert.

    Raises:
        ModelError: An expert is missing that would be needed.
    """
    name, parts = checkpoint.source.name, checkpoint.parts
    ratio = checkpoint.source.index.get("boundary_ratio")
    needed = {"transformer": ratio is None or ratio < 1, "transformer_2": bool(ratio)}
    missing = [expert for expert in Wan.denoisers if parts[expert] is None]
    if any(needed[expert] for expert in missing):
        raise ModelError(f"{name}: there is no {missing[0]}, and boundary_ratio is {ratio}")
    if "transformer" in missing:
        return math.inf
    return float(ratio or 0) * int(checkpoint.scheduler_config.get("num_train_timesteps", 1000))
