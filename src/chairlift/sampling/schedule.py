"""One row's schedule: the noise levels at which its denoiser is evaluated.

The levels come from diffusers' scheduler objects, one for each sampler, so that they are what the
stock pipeline uses. Only the tables are taken; the update rules are in
:mod:`chairlift.sampling.samplers`.

At every level the latents are ``x = alpha * clean + sigma * noise``. Three parametrisations are in
use: variance preserving (``alpha**2 + sigma**2 = 1``: ddim, dpmpp_2m), variance exploding
(``alpha = 1``: euler, heun, and the input is scaled down before the denoiser sees it), and flow
matching (``alpha = 1 - sigma``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
)
from numpy.typing import NDArray

from chairlift.errors import ModelError

Prediction = Literal["epsilon", "v_prediction", "flow"]
Levels = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The noise levels of one row for one sampler. ``evaluations`` is the length of each array."""

    sampler: str
    prediction: Prediction
    """What the denoiser's output means."""
    timesteps: Levels
    """What the denoiser is told."""
    alphas: Levels
    """Weight of the clean latents before each evaluation."""
    sigmas: Levels
    """Weight of the noise before each evaluation."""
    next_alphas: Levels
    """Weight of the clean latents where the step from this evaluation lands."""
    next_sigmas: Levels
    """Weight of the noise there; 0 at the end."""
    input_scales: Levels
    """What the latents are multiplied by before the denoiser sees them."""
    initial_scale: float
    """What the initial unit noise is multiplied by."""

    @property
    def evaluations(self) -> int:
        return len(self.timesteps)


_DIFFUSION_SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "euler": (EulerDiscreteScheduler, {}),
    "euler_ancestral": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    # Latents aren't bounded like pixels: clipping them to -1..1 would ruin the picture.
    "ddim": (DDIMScheduler, {"clip_sample": False, "thresholding": False}),
    "plms": (PNDMScheduler, {"skip_prk_steps": True}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, {"use_karras_sigmas": False}),
    "dpmpp_2m_karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
}
_DPMPP_2M: dict[str, Any] = {
    "algorithm_type": "dpmsolver++",
    "solver_order": 2,
    "solver_type": "midpoint",
    "final_sigmas_type": "zero",
    "thresholding": False,
}

DIFFUSION_SAMPLERS = tuple(_DIFFUSION_SCHEDULERS)
"""Samplers for denoisers that predict epsilon or v."""
FLOW_SAMPLERS = ("euler", "euler_ancestral", "heun", "ddim", "dpmpp_2m")
"""Samplers for flow matching. Karras' levels are not defined there."""


def diffusion_scheduler(sampler: str, config: Mapping[str, Any]) -> Any:
    """The stock scheduler object whose levels ``sampler`` uses, for a checkpoint's scheduler
    configuration.
    """
    cls, overrides = _DIFFUSION_SCHEDULERS[sampler]
    if cls is DPMSolverMultistepScheduler:
        overrides = _DPMPP_2M | overrides
    return cls.from_config(dict(config), **overrides)


def flow_scheduler(sampler: str, config: Mapping[str, Any]) -> Any:
    """The stock scheduler object for a flow-matching checkpoint; ddim is euler there."""
    if sampler == "heun":
        return FlowMatchHeunDiscreteScheduler.from_config(dict(config))
    if sampler == "dpmpp_2m":
        return DPMSolverMultistepScheduler.from_config(
            dict(config),
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=config.get("shift", 1.0),
            **_DPMPP_2M,
        )
    return FlowMatchEulerDiscreteScheduler.from_config(
        dict(config), stochastic_sampling=sampler == "euler_ancestral"
    )


def diffusion_schedule(sampler: str, steps: int, config: Mapping[str, Any]) -> Schedule:
    """Levels for a denoiser that predicts epsilon or v.

    Raises:
        ModelError: The checkpoint's prediction type is neither.
    """
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"prediction_type is {prediction!r}; it must be one of epsilon, v_prediction"
        )
    scheduler = diffusion_scheduler(sampler, config)
    scheduler.set_timesteps(steps)
    timesteps = _array(scheduler.timesteps)
    if sampler in ("ddim", "plms"):
        return _stride_schedule(sampler, scheduler, timesteps, prediction)
    levels = _array(scheduler.sigmas)
    ones = np.ones_like(levels)
    if sampler.startswith("dpmpp"):
        alphas = 1 / np.sqrt(levels**2 + 1)
        sigmas, input_scales = levels * alphas, ones[:-1]
    else:
        alphas, sigmas = ones, levels
        input_scales = 1 / np.sqrt(levels[:-1] ** 2 + 1)
    return Schedule(
        sampler=sampler,
        prediction=prediction,
        timesteps=timesteps,
        alphas=alphas[:-1],
        sigmas=sigmas[:-1],
        next_alphas=alphas[1:],
        next_sigmas=sigmas[1:],
        input_scales=input_scales,
        initial_scale=float(scheduler.init_noise_sigma),
    )


def flow_schedule(
    sampler: str, steps: int, config: Mapping[str, Any], mu: float | None = None
) -> Schedule:
    """Levels for flow matching; ``mu`` is the shift of checkpoints whose shift depends on the
    resolution.
    """
    scheduler = flow_scheduler(sampler, config)
    if mu is None:
        scheduler.set_timesteps(steps)
    else:
        scheduler.set_timesteps(steps, mu=mu)
    levels = _array(scheduler.sigmas)
    return Schedule(
        sampler=sampler,
        prediction="flow",
        timesteps=_array(scheduler.timesteps),
        alphas=1 - levels[:-1],
        sigmas=levels[:-1],
        next_alphas=1 - levels[1:],
        next_sigmas=levels[1:],
        input_scales=np.ones(len(levels) - 1),
        initial_scale=1.0,
    )


def _stride_schedule(
    sampler: str, scheduler: Any, timesteps: Levels, prediction: Prediction
) -> Schedule:
    """DDIM and PLMS of diffusers step by a fixed stride, which lands a little off the next
    timestep where the stride doesn't divide the table; that is kept.

    PLMS evaluates twice for its first step: the second evaluation, where that step landed, takes
    it again from its start, so that is its level.
    """
    alphas_cumprod = _array(scheduler.alphas_cumprod)
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    here = timesteps.astype(int)
    if sampler == "plms":
        here[1:2] += stride
    before = here - stride
    cumprod = alphas_cumprod[here]
    next_cumprod = np.where(
        before >= 0, alphas_cumprod[np.maximum(before, 0)], float(scheduler.final_alpha_cumprod)
    )
    return Schedule(
        sampler=sampler,
        prediction=prediction,
        timesteps=timesteps,
        alphas=np.sqrt(cumprod),
        sigmas=np.sqrt(1 - cumprod),
        next_alphas=np.sqrt(next_cumprod),
        next_sigmas=np.sqrt(1 - next_cumprod),
        input_scales=np.ones(len(timesteps)),
        initial_scale=1.0,
    )


def _array(values: Any) -> Levels:
    return np.asarray(values, dtype=np.float64)
