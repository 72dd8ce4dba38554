"""What families with a UNet share: the default sampler of their schedulers, and guidance."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chairlift.models.adapter import ForwardBatch, combine_guidance

logger = logging.getLogger(__name__)

_SAMPLER_OF_SCHEDULER = {
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "HeunDiscreteScheduler": "heun",
    "DDIMScheduler": "ddim",
    "PNDMScheduler": "plms",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "UniPCMultistepScheduler": "unipc",
}


def default_sampler(scheduler_config: Mapping[str, Any]) -> str:
    """The sampler of a checkpoint's own scheduler; euler where that one isn't offered."""
    scheduler = str(scheduler_config.get("_class_name"))
    sampler = _SAMPLER_OF_SCHEDULER.get(scheduler)
    if sampler is None:
        logger.warning("%s isn't offered as a sampler; the default is euler", scheduler)
        return "euler"
    if sampler == "dpmpp_2m" and scheduler_config.get("use_karras_sigmas"):
        return "dpmpp_2m_karras"
    return sampler


def guide(output: Tensor, batch: ForwardBatch) -> Tensor:
    """Classifier-free guidance, then guidance rescale (Lin et al. 2023, section 3.4) by each row's
    own ``guidance_rescale``: the guided output gets back the standard deviation of the positive
    side.

    Args:
        output: ``(guided + rows, …)``, the denoiser's output for ``batch``.

    Returns:
        ``(rows, …)``, float32.
    """
    combined = combine_guidance(output, batch)
    if not batch.guided:
        return combined
    guided = combined[: batch.guided]
    positive = output[batch.guided : 2 * batch.guided].float()
    dimensions = tuple(range(1, output.dim()))
    contrast = positive.std(dimensions, keepdim=True) / guided.std(dimensions, keepdim=True)
    rescale = batch.conditioning["guidance_rescale"][batch.guided : 2 * batch.guided]
    rescale = rescale.view(-1, *(1,) * len(dimensions))
    # Rows that don't ask for it stay as they are, even where their contrast isn't a number.
    rescaled = torch.where(rescale > 0, guided * (rescale * contrast + 1 - rescale), guided)
    return torch.cat([rescaled, combined[batch.guided :]])
