"""Every sampler for flow matching equals its counterpart in diffusers, with the configurations and
the arguments of the stock pipelines.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from chairlift.errors import ModelError
from chairlift.sampling.samplers import step_table
from chairlift.sampling.schedule import FLOW_SAMPLERS, flow_schedule
from tests.sampling.reference import assert_same, stock

STEPS = [1, 2, 3, 4, 20, 30]


class Case(NamedTuple):
    config: dict[str, Any]
    """Of FlowMatchEulerDiscreteScheduler."""
    mu: float | None = None
    own_sigmas: bool = False
    """Whether the stock pipeline passes sigmas."""


CASES = {
    "shift 1": Case({"shift": 1.0}),
    "shift 3": Case({"shift": 3.0}),
    "FLUX.1-schnell": Case({"shift": 1.0, "use_dynamic_shifting": False}, 0.9, True),
    "Z-Image-Turbo": Case({"shift": 3.0, "use_dynamic_shifting": False}, 1.15, True),
    "FLUX.1-dev": Case({"shift": 3.0, "use_dynamic_shifting": True}, 0.87, True),
    "Qwen-Image": Case(
        {
            "shift": 1.0,
            "use_dynamic_shifting": True,
            "time_shift_type": "exponential",
            "shift_terminal": 0.02,
        },
        0.7,
        True,
    ),
    "linear shift": Case({"use_dynamic_shifting": True, "time_shift_type": "linear"}, 2.5, True),
    "karras": Case({"shift": 3.0, "use_karras_sigmas": True}),
}


def flow_match_heun(euler: Any) -> Any:
    """FlowMatchHeunDiscreteScheduler with the levels of ``euler``."""
    scheduler = FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(len(euler.timesteps))
    first, middle, last = euler.sigmas[:1], euler.sigmas[1:-1], euler.sigmas[-1:]
    scheduler.sigmas = torch.cat([first, middle.repeat_interleave(2), last])
    scheduler.timesteps = torch.cat([euler.timesteps[:1], euler.timesteps[1:].repeat_interleave(2)])
    return scheduler


def stock_flow(sampler: str, steps: int, case: Case) -> Tensor:
    """What the stock pipeline makes of ``case``, with ``sampler``'s class put in."""
    config, mu, own_sigmas = case
    if steps == 1:
        config = config | {"shift_terminal": None}  # diffusers' level isn't a number
    shifting = {"use_dynamic_shifting": config.get("use_dynamic_shifting", False)}
    options = {"mu": mu} if shifting["use_dynamic_shifting"] else {}
    solver = {
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": config.get("shift", 1.0),
    }
    scheduler: Any
    if sampler == "dpmpp_2m":
        if config.get("time_shift_type") == "linear":  # not in this class
            shifting, options, solver["flow_shift"] = {}, {}, mu
        scheduler = DPMSolverMultistepScheduler(**solver, **shifting)
        scheduler.set_timesteps(steps, **options)
    elif sampler == "unipc":
        names = ("time_shift_type", "shift_terminal", "use_karras_sigmas")
        shifting |= {name: config[name] for name in names if name in config}
        scheduler = UniPCMultistepScheduler(**solver, **shifting)
        scheduler.set_timesteps(steps, **options)
    else:
        stochastic = sampler == "euler_ancestral"
        scheduler = FlowMatchEulerDiscreteScheduler(**config, stochastic_sampling=stochastic)
        sigmas = np.linspace(1, 1 / steps, steps) if own_sigmas else None
        scheduler.set_timesteps(steps, sigmas=sigmas, mu=mu)
        if sampler == "heun":
            scheduler = flow_match_heun(scheduler)
    return stock(scheduler)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sampler", FLOW_SAMPLERS)
def test_a_lone_row_equals_diffusers(sampler: str, case: str, steps: int) -> None:
    config, mu, own_sigmas = CASES[case]
    sigmas = np.linspace(1, 1 / steps, steps) if own_sigmas else None
    schedule = flow_schedule(sampler, steps, config, mu, sigmas)
    assert_same(schedule, stock_flow(sampler, steps, CASES[case]))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_heun_with_a_fixed_shift_has_the_levels_of_its_own_class(shift: float, steps: int) -> None:
    scheduler = FlowMatchHeunDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    schedule = flow_schedule("heun", steps, {"shift": shift})
    np.testing.assert_array_equal(schedule.timesteps, scheduler.timesteps.double().numpy())
    assert_same(schedule, stock(scheduler))


@pytest.mark.parametrize("sampler", FLOW_SAMPLERS)
def test_a_configuration_of_a_multistep_solver_serves_every_sampler(sampler: str) -> None:
    """Wan's, and with keys that only some classes know."""
    config = {
        "_class_name": "UniPCMultistepScheduler",
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": 5.0,
        "solver_order": 2,
        "solver_type": "bh2",
        "final_sigmas_type": "zero",
        "beta_schedule": "linear",
        "time_shift_type": "exponential",
        "use_dynamic_shifting": False,
        "shift_terminal": None,
        "sigma_min": None,
        "sigma_max": None,
    }
    expected = stock_flow(sampler, 20, Case({"shift": 5.0}))
    assert_same(flow_schedule(sampler, 20, config), expected)


def test_karras_levels_of_a_diffusion_are_not_taken_for_those_of_a_flow() -> None:
    """Cosmos-Predict2.5's configuration has the first and last level of a diffusion."""
    config = {"flow_shift": 1.0, "use_karras_sigmas": True, "sigma_max": 200.0, "sigma_min": 0.01}
    for sampler in FLOW_SAMPLERS:
        assert flow_schedule(sampler, 10, config).sigmas.max() <= 1


@pytest.mark.parametrize("sampler", FLOW_SAMPLERS)
def test_no_coefficient_is_infinite_at_any_step_count(sampler: str) -> None:
    for config, mu, own_sigmas in CASES.values():
        for steps in range(1, 61):
            sigmas = np.linspace(1, 1 / steps, steps) if own_sigmas else None
            schedule = flow_schedule(sampler, steps, config, mu, sigmas)
            assert np.isfinite(step_table(schedule).stack()).all()


def test_the_picture_s_size_shifts_the_levels_of_every_sampler() -> None:
    config = CASES["FLUX.1-dev"].config
    for sampler in FLOW_SAMPLERS:
        small, large = (flow_schedule(sampler, 8, config, mu).sigmas for mu in (0.5, 1.15))
        assert (large[1:] > small[1:]).all()


def test_levels_from_0_to_1_are_refused() -> None:
    with pytest.raises(ModelError, match="invert_sigmas is true"):
        flow_schedule("euler", 8, {"invert_sigmas": True})


def test_sigmas_must_be_as_many_as_the_steps() -> None:
    with pytest.raises(ValueError, match="same length"):
        flow_schedule("euler", 8, {}, sigmas=[1.0, 0.5])


def test_the_linear_shift_of_dpmpp_2m_is_the_one_by_mu() -> None:
    config, mu, _ = CASES["linear shift"]
    assert mu is not None
    exponential = config | {"time_shift_type": "exponential"}
    np.testing.assert_allclose(
        flow_schedule("dpmpp_2m", 8, config, mu).sigmas,
        flow_schedule("dpmpp_2m", 8, exponential, math.log(mu)).sigmas,
    )
