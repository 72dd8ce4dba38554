"""A model without weights: deterministic, instant, and as slow as it is told to be.

For tests, load tests and benchmarks of everything around the denoiser. Its latents have four
channels at an eighth of the picture's size, its prediction is a smooth function of the latents,
the timestep and the prompt, so that mixing up rows changes pictures.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from chairlift.card import Defaults, Limits, ModelCard
from chairlift.errors import ModelError
from chairlift.models.adapter import Adapter, Conditioning, ForwardBatch, combine_guidance
from chairlift.models.preview import Previewer
from chairlift.models.source import FAKE_NAME
from chairlift.request import GenerationRequest, Prompt
from chairlift.sampling.schedule import DIFFUSION_SAMPLERS, Schedule, diffusion_schedule
from chairlift.scheduling.batch_key import BatchKey

CHANNELS = 4
SCALE = 8
WORDS = 8
"""Numbers in the conditioning of a prompt."""


class FakePreview(Previewer):
    """One pixel a latent pixel, exactly as it is decoded."""

    def render(self, latents: Tensor) -> Tensor:
        return _levels(latents).movedim(1, -1)


class FakeModel(Adapter):
    """The adapter. See :class:`chairlift.models.adapter.Adapter`.

    Args:
        step_seconds: What a forward takes, whatever is in it.
        row_seconds: What each entry of a forward takes on top of that.
    """

    device = torch.device("cpu")
    dtype = noise_dtype = torch.float32
    previewer = FakePreview()

    def __init__(self, step_seconds: float = 0.0, row_seconds: float = 0.0) -> None:
        self.step_seconds = step_seconds
        self.row_seconds = row_seconds
        self.card = ModelCard(
            id=FAKE_NAME,
            pipeline="FakePipeline",
            dtype="float32",
            device="cpu",
            defaults=Defaults(width=64, height=64, steps=10, guidance_scale=3.0, sampler="euler"),
            limits=Limits(size_multiple=SCALE, max_pixels=512 * 512, max_steps=200),
            samplers=DIFFUSION_SAMPLERS,
        )

    @classmethod
    def named(cls, name: str) -> Self:
        """The one that a name like ``fake:0.02`` means.

        Raises:
            ModelError: What follows the name isn't one or two numbers of seconds.
        """
        try:
            seconds = [float(part) for part in name.split(":")[1:]]
        except ValueError:
            seconds = [math.nan]
        if len(seconds) > 2 or not all(0 <= value < math.inf for value in seconds):
            raise ModelError(
                f"model is {name!r}; it must be fake, fake:SECONDS or fake:SECONDS:SECONDS"
            )
        return cls(*seconds)

    def batch_key(self, request: GenerationRequest) -> BatchKey:
        shape = (CHANNELS, request.height // SCALE, request.width // SCALE)
        return BatchKey(self.card.id, shape, f"words {WORDS}")

    def encode(self, prompts: Sequence[Prompt]) -> list[Conditioning]:
        texts = [prompt.text or "" for prompt in prompts]
        digests = [hashlib.sha256(text.encode()).digest()[:WORDS] for text in texts]
        return [
            Conditioning({"words": torch.tensor(list(digest), dtype=torch.float32) / 255})
            for digest in digests
        ]

    def schedule(self, request: GenerationRequest) -> Schedule:
        return diffusion_schedule(
            request.sampler, request.steps, {"prediction_type": "epsilon", "steps_offset": 1}
        )

    def predict(self, batch: ForwardBatch) -> Tensor:
        seconds = self.step_seconds + self.row_seconds * len(batch.latents)
        if seconds:
            time.sleep(seconds)
        words = batch.conditioning["words"]
        tone = words[:, :CHANNELS, None, None] - words[:, CHANNELS:, None, None]
        level = (batch.timesteps / 1000)[:, None, None, None]
        return combine_guidance(torch.tanh(batch.latents - (1 - level) * tone), batch)

    def decode(self, latents: Tensor) -> Tensor:
        pixels = _levels(latents).repeat_interleave(SCALE, 2).repeat_interleave(SCALE, 3)
        return pixels.permute(0, 2, 3, 1)


def _levels(latents: Tensor) -> Tensor:
    """``(rows, 3, height, width)`` uint8."""
    return (torch.sigmoid(latents[:, :3]) * 255).round().to(torch.uint8)
