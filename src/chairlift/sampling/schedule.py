"""One row's schedule: the noise levels at which its denoiser is evaluated.

The levels come from diffusers' scheduler objects, one for each sampler, so that they are what the
stock pipeline uses. Only the tables are taken; the update rules are in
:mod:`chairlift.sampling.samplers`.

At every level the latents are ``x = alpha * clean + sigma * noise``. Three parametrisations are in
use: variance preserving (``alpha**2 + sigma**2 = 1``: ddim, plms, dpmpp_2m, unipc), variance
exploding (``alpha = 1``: euler, heun, and the input is scaled down before the denoiser sees it),
and flow matching (``alpha = 1 - sigma``).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from numpy.typing import NDArray

from chairlift.errors import ModelError

Prediction = Literal["epsilon", "v_prediction", "flow"]
Levels = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Solver:
    """How UniPC solves, as the checkpoint's configuration has it."""

    order: int
    """``p``: 1, 2 or 3."""
    kind: Literal["bh1", "bh2"]
    """The function ``B(h)``: ``-h`` or ``exp(-h) - 1``."""
    lower_order_final: bool
    """Whether the order goes down to 1 towards the end."""
    uncorrected: frozenset[int]
    """The steps whose result isn't corrected."""


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
    solver: Solver | None = None
    """For unipc."""

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
    "unipc": (UniPCMultistepScheduler, {"thresholding": False}),
}
_DPMPP_2M: dict[str, Any] = {
    "algorithm_type": "dpmsolver++",
    "solver_order": 2,
    "solver_type": "midpoint",
    "final_sigmas_type": "zero",
    "thresholding": False,
}
_FLOW_SOLVER: dict[str, Any] = {
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "final_sigmas_type": "zero",
    "thresholding": False,
    # These would take the place of the flow's levels, with those of a diffusion.
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
_FLOW_SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "euler": (FlowMatchEulerDiscreteScheduler, {"stochastic_sampling": False}),
    "euler_ancestral": (FlowMatchEulerDiscreteScheduler, {"stochastic_sampling": True}),
    # FlowMatchHeunDiscreteScheduler has the same levels, but only those of a fixed shift.
    "heun": (FlowMatchEulerDiscreteScheduler, {"stochastic_sampling": False}),
    "ddim": (FlowMatchEulerDiscreteScheduler, {"stochastic_sampling": False}),
    "dpmpp_2m": (
        DPMSolverMultistepScheduler,
        _FLOW_SOLVER
        | _DPMPP_2M
        | {
            "use_karras_sigmas": False,
            "use_lu_lambdas": False,
            "time_shift_type": "exponential",  # It has no other; see flow_schedule.
        },
    ),
    "unipc": (UniPCMultistepScheduler, _FLOW_SOLVER),
}

DIFFUSION_SAMPLERS = tuple(_DIFFUSION_SCHEDULERS)
"""Samplers for denoisers that predict epsilon or v."""
FLOW_SAMPLERS = tuple(_FLOW_SCHEDULERS)
"""Samplers for flow matching."""


def diffusion_scheduler(sampler: str, config: Mapping[str, Any]) -> Any:
    """The stock scheduler object whose levels ``sampler`` uses, for a checkpoint's scheduler
    configuration.
    """
    cls, overrides = _DIFFUSION_SCHEDULERS[sampler]
    if cls is DPMSolverMultistepScheduler:
        overrides = _DPMPP_2M | overrides
    return cls.from_config(dict(config), **overrides)


def flow_scheduler(sampler: str, config: Mapping[str, Any]) -> Any:
    """The stock scheduler object whose levels ``sampler`` uses, for the scheduler configuration of
    a flow-matching checkpoint, be it FlowMatchEulerDiscreteScheduler's (with ``shift``) or a
    multistep solver's (with ``flow_shift``).

    Raises:
        ModelError: The checkpoint's levels run from 0 to 1.
    """
    if config.get("invert_sigmas"):
        raise ModelError("invert_sigmas is true; it must be false: the levels go from 1 to 0")
    cls, overrides = _FLOW_SCHEDULERS[sampler]
    # Undeclared keys are not ignored: Karras levels look for sigma_min and sigma_max, say.
    declared = inspect.signature(cls.__init__).parameters
    shift = config.get("shift", config.get("flow_shift", 1.0))
    overrides = overrides | {"shift" if "shift" in declared else "flow_shift": shift}
    return cls.from_config({key: config[key] for key in config if key in declared}, **overrides)


def diffusion_schedule(sampler: str, steps: int, config: Mapping[str, Any]) -> Schedule:
    """Levels for a denoiser that predicts epsilon or v.

    Raises:
        ModelError: The checkpoint's prediction type is neither, or the sampler can't be used with
            the checkpoint's settings.
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
    if sampler.startswith("dpmpp") or sampler == "unipc":
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
        solver=_solver(scheduler.config) if sampler == "unipc" else None,
    )


def flow_schedule(
    sampler: str,
    steps: int,
    config: Mapping[str, Any],
    mu: float | None = None,
    sigmas: Sequence[float] | NDArray[np.floating[Any]] | None = None,
) -> Schedule:
    """Levels for flow matching.

    Args:
        sampler: One of ``FLOW_SAMPLERS``.
        steps: How many steps.
        config: The checkpoint's scheduler configuration.
        mu: The shift for the picture's size; used if the checkpoint has ``use_dynamic_shifting``,
            and needed then.
        sigmas: The levels before the shift, one for each step, where the stock pipeline passes
            them. As in FLUX's, dpmpp_2m and unipc have their own instead.

    Raises:
        ModelError: The sampler can't be used with the checkpoint's settings.
    """
    if steps == 1:
        # Stretching a lone level from 1 to shift_terminal divides 0 by 0.
        config = {**config, "shift_terminal": None}
    scheduler = flow_scheduler(sampler, config)
    options: dict[str, Any] = {}
    if mu is not None and scheduler.config.use_dynamic_shifting:
        # DPMSolverMultistepScheduler shifts by exp(mu) only; the linear type is a shift by mu.
        linear = sampler == "dpmpp_2m" and config.get("time_shift_type") == "linear"
        options["mu"] = math.log(mu) if linear else mu
    if sigmas is not None and "use_flow_sigmas" not in scheduler.config:
        options["sigmas"] = sigmas
    scheduler.set_timesteps(steps, **options)
    levels, timesteps = _array(scheduler.sigmas), _array(scheduler.timesteps)
    if sampler == "heun":
        # Each level but the first is evaluated by the step that ends there and the one that starts.
        levels = np.concatenate([levels[:1], levels[1:-1].repeat(2), levels[-1:]])
        timesteps = np.concatenate([timesteps[:1], timesteps[1:].repeat(2)])
    return Schedule(
        sampler=sampler,
        prediction="flow",
        timesteps=timesteps,
        alphas=1 - levels[:-1],
        sigmas=levels[:-1],
        next_alphas=1 - levels[1:],
        next_sigmas=levels[1:],
        input_scales=np.ones(len(levels) - 1),
        initial_scale=1.0,
        solver=_solver(scheduler.config) if sampler == "unipc" else None,
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
    # Trailing timesteps can have -1 after the last (for 61 steps, say), the table's wrong end.
    timesteps = timesteps[timesteps >= 0]
    here = timesteps.astype(int)
    if sampler == "plms":
        here[1:2] += stride
    before = here - stride
    cumprod = alphas_cumprod[here]
    if prediction == "epsilon" and not cumprod.all():
        raise ModelError(
            "prediction_type is 'epsilon'; with rescale_betas_zero_snr it must be v_prediction,"
            " since the clean latents don't follow from the noise where there is only noise"
        )
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


def _solver(config: Any) -> Solver:
    """UniPC's settings from the stock scheduler's configuration."""
    if not config.predict_x0:
        raise ModelError(f"predict_x0 is {config.predict_x0!r}; it must be true for unipc")
    if config.solver_order not in (1, 2, 3):
        raise ModelError(
            f"solver_order is {config.solver_order!r}; it must be one of 1, 2, 3 for unipc"
        )
    return Solver(
        order=config.solver_order,
        kind=config.solver_type,
        lower_order_final=config.lower_order_final,
        uncorrected=frozenset(config.disable_corrector),
    )


def _array(values: Any) -> Levels:
    return np.asarray(values, dtype=np.float64)
