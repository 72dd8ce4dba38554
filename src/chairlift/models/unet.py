"""What families with a UNet share: shapes, schedules, limits, and guidance."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from chairlift.card import Defaults, Guidance, Limits
from chairlift.errors import ModelError
from chairlift.models.adapter import ForwardBatch, combine_guidance
from chairlift.models.checkpoint import Checkpoint
from chairlift.models.compiling import mark_entries
from chairlift.models.family import MAX_STEPS, Family, default_sampler
from chairlift.request import GenerationRequest
from chairlift.sampling.schedule import DIFFUSION_SAMPLERS, Schedule, diffusion_schedule
from chairlift.scheduling.batch_key import BatchKey

STOCK_MULTIPLE = 8
"""The stock pipelines refuse sides that aren't multiples of this."""

_SAMPLER_OF_SCHEDULER = {
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "HeunDiscreteScheduler": "heun",
    "DDIMScheduler": "ddim",
    "PNDMScheduler": "plms",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "UniPCMultistepScheduler": "unipc",
}


class UNetFamily(Family):
    """A family whose denoiser is a ``UNet2DConditionModel``.

    Args:
        checkpoint: Its networks and tokenizers.
        guidance_scale: The default.
    """

    denoisers = ("unet",)
    compile_whole = True

    def __init__(self, checkpoint: Checkpoint, guidance_scale: float) -> None:
        super().__init__(checkpoint)
        self._unet = checkpoint.parts["unet"].to(memory_format=torch.channels_last)
        self._vae = checkpoint.parts["vae"].to(memory_format=torch.channels_last)
        if self._unet.config.time_cond_proj_dim is not None:
            raise ModelError(f"{checkpoint.source.name}: LCM (guidance-distilled) is not supported")
        self._scale = 2 ** (len(self._vae.config.block_out_channels) - 1)
        side = int(self._unet.config.sample_size) * self._scale
        config = checkpoint.scheduler_config
        sampler = default_sampler(config, _SAMPLER_OF_SCHEDULER)
        if sampler == "dpmpp_2m" and config.get("use_karras_sigmas"):
            sampler = "dpmpp_2m_karras"
        self.card = self.create_card(
            defaults=Defaults(
                width=side, height=side, steps=30, guidance_scale=guidance_scale, sampler=sampler
            ),
            limits=Limits(
                size_multiple=max(STOCK_MULTIPLE, self._scale),
                max_pixels=4 * side * side,
                max_steps=MAX_STEPS,
            ),
            samplers=DIFFUSION_SAMPLERS,
            guidance=Guidance(options=("guidance_rescale",)),
        )

    def batch_key(self, request: GenerationRequest) -> BatchKey:
        height, width = request.height // self._scale, request.width // self._scale
        return BatchKey(self.card.id, (self._unet.config.in_channels, height, width), "text")

    def predict_noise(
        self, batch: ForwardBatch, added: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """The UNet's output, ``(guided + rows, …)``.

        Args:
            batch: Its conditioning has ``text``.
            added: What the UNet is told besides, each ``(guided + rows, …)``.
        """
        latents = batch.latents.contiguous(memory_format=torch.channels_last)
        text = batch.conditioning["text"]
        if self.compilation is not None:
            mark_entries(latents, batch.timesteps, text, *(added or {}).values())
        output: Tensor = self._unet(
            latents,
            batch.timesteps,
            encoder_hidden_states=text,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return output.contiguous()

    def guide(self, output: Tensor, batch: ForwardBatch) -> Tensor:
        return guide(output, batch)

    def schedule(self, request: GenerationRequest) -> Schedule:
        config = self._checkpoint.scheduler_config
        return diffusion_schedule(request.sampler, request.steps, config)


def guide(output: Tensor, batch: ForwardBatch) -> Tensor:
    """Classifier-free guidance, then guidance rescale (Lin et al. 2023, section 3.4) by each row's
    own ``guidance_rescale``: the guided output gets back the standard deviation of the positive
    side.

    Args:
        output: ``(guided + rows, …)``, the denoiser's output for ``batch``.

    Returns:
        ``(rows, …)``, float32.
    """

    def rescale(guided: Tensor, positive: Tensor) -> Tensor:
        dimensions = tuple(range(1, output.dim()))
        contrast = positive.std(dimensions, keepdim=True) / guided.std(dimensions, keepdim=True)
        share = batch.of_guided_rows("guidance_rescale")
        # Rows that don't ask for it stay as they are, even where their contrast isn't a number.
        return torch.where(share > 0, guided * (share * contrast + 1 - share), guided)

    return combine_guidance(output, batch, rescale)
