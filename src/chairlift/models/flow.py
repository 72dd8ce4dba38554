"""What flow-matching families share: the shift for a picture's size, the default sampler of their
schedulers, and latents as tokens of 2x2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from chairlift.models.family import default_sampler

_SAMPLER_OF_SCHEDULER = {
    "FlowMatchEulerDiscreteScheduler": "euler",
    "FlowMatchHeunDiscreteScheduler": "heun",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "UniPCMultistepScheduler": "unipc",
}


def default_flow_sampler(scheduler_config: Mapping[str, Any]) -> str:
    """The sampler of a checkpoint's own scheduler; euler where that one isn't offered."""
    sampler = default_sampler(scheduler_config, _SAMPLER_OF_SCHEDULER)
    if sampler == "euler" and scheduler_config.get("stochastic_sampling"):
        return "euler_ancestral"
    return sampler


def calculate_mu(
    config: Mapping[str, Any], image_tokens: int, max_shift_default: float = 1.15
) -> float:
    """The shift for a picture of ``image_tokens`` tokens, for checkpoints with
    ``use_dynamic_shifting``: linear in their number (``calculate_shift`` in diffusers).

    Args:
        config: The checkpoint's scheduler configuration.
        image_tokens: How many tokens the denoiser makes of the picture.
        max_shift_default: What the stock pipeline assumes where the scheduler has no
            ``max_shift``.
    """
    if config.get("_class_name") == "FlowMatchEulerDiscreteScheduler":
        # This one has a value in any case, so that the pipeline's own comes to nothing.
        max_shift_default = 1.15
    base_tokens = config.get("base_image_seq_len", 256)
    max_tokens = config.get("max_image_seq_len", 4096)
    base_shift = config.get("base_shift", 0.5)
    max_shift = config.get("max_shift", max_shift_default)
    slope = (max_shift - base_shift) / (max_tokens - base_tokens)
    return float(image_tokens * slope + (base_shift - slope * base_tokens))


def pack(latents: Tensor) -> Tensor:
    """Each 2x2 square of the latents becomes a token: ``(rows, channels, height, width)`` to
    ``(rows, height / 2 * width / 2, channels * 4)``.
    """
    rows, channels, height, width = latents.shape
    squares = latents.reshape(rows, channels, height // 2, 2, width // 2, 2)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(rows, -1, channels * 4)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of :func:`pack`, to latents of this height and width."""
    squares = tokens.reshape(len(tokens), height // 2, width // 2, -1, 2, 2)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, height, width)
