"""Every sampler equals its counterpart in diffusers, alone and beside others, for denoisers that
predict epsilon or v.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from chairlift.errors import ModelError
from chairlift.sampling.samplers import step_table
from chairlift.sampling.schedule import (
    DIFFUSION_SAMPLERS,
    FLOW_SAMPLERS,
    diffusion_schedule,
    diffusion_scheduler,
    flow_schedule,
)
from tests.sampling.reference import assert_same, ours, stock

STEPS = [1, 2, 3, 4, 20, 30]
CONFIGS: dict[str, dict[str, Any]] = {
    "stable diffusion 1.5": {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "set_alpha_to_one": False,
        "prediction_type": "epsilon",
        "timestep_spacing": "leading",
    },
    "v prediction, trailing": {
        "beta_start": 0.00085,
        "beta_end": 0.02,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
    },
    "linspace": {"prediction_type": "v_prediction", "timestep_spacing": "linspace"},
}
ZERO_SNR = CONFIGS["stable diffusion 1.5"] | {
    "rescale_betas_zero_snr": True,
    "prediction_type": "v_prediction",
}


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("sampler", DIFFUSION_SAMPLERS)
def test_a_lone_row_equals_diffusers(sampler: str, config: str, steps: int) -> None:
    scheduler = diffusion_scheduler(sampler, CONFIGS[config])
    scheduler.set_timesteps(steps)
    assert_same(diffusion_schedule(sampler, steps, CONFIGS[config]), stock(scheduler))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("spacing", ["trailing", "linspace", "leading"])
@pytest.mark.parametrize("sampler", DIFFUSION_SAMPLERS)
def test_a_checkpoint_that_starts_from_noise_alone_equals_diffusers(
    sampler: str, spacing: str, steps: int
) -> None:
    """Zero terminal SNR (Lin et al. 2024); heun's and plms' classes don't know it."""
    config = ZERO_SNR | {"timestep_spacing": spacing}
    scheduler = diffusion_scheduler(sampler, config)
    scheduler.set_timesteps(steps)
    # Euler's first sigma is 4096; in one step from there to 0 diffusers' float32 is itself off by
    # more than the bound, unless the noise is less.
    noise = 0.1
    assert_same(diffusion_schedule(sampler, steps, config), stock(scheduler, noise=noise), 5, noise)


def test_predicting_epsilon_is_refused_where_there_is_no_signal() -> None:
    config = ZERO_SNR | {"prediction_type": "epsilon", "timestep_spacing": "trailing"}
    with pytest.raises(ModelError, match="prediction_type is 'epsilon'"):
        diffusion_schedule("ddim", 20, config)
    # With this spacing the last timestep of training isn't evaluated.
    diffusion_schedule("ddim", 20, config | {"timestep_spacing": "leading"})


@pytest.mark.parametrize("sampler", ["ddim", "plms"])
def test_trailing_timesteps_end_before_the_table_does(sampler: str) -> None:
    """At 61 steps diffusers ends with timestep -1, which reads the noisiest level of all."""
    config = ZERO_SNR | {"timestep_spacing": "trailing"}
    schedule = diffusion_schedule(sampler, 61, config)
    assert schedule.timesteps.min() >= 0
    assert schedule.evaluations == (61 if sampler == "ddim" else 62)


def test_rows_of_all_samplers_steps_and_predictions_share_one_update() -> None:
    schedules = [
        diffusion_schedule(sampler, steps, CONFIGS[config])
        for steps, (sampler, config) in enumerate(
            ((sampler, config) for sampler in DIFFUSION_SAMPLERS for config in CONFIGS), start=2
        )
    ]
    schedules += [
        flow_schedule(sampler, steps, {"shift": 3.0})
        for steps, sampler in enumerate(FLOW_SAMPLERS, start=4)
    ]
    seeds = list(range(len(schedules)))
    together = ours(schedules, seeds)
    for schedule, seed, row in zip(schedules, seeds, together, strict=True):
        [alone] = ours([schedule], [seed])
        torch.testing.assert_close(row, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampler", DIFFUSION_SAMPLERS)
def test_no_coefficient_is_infinite_at_any_step_count(sampler: str) -> None:
    for config in [*CONFIGS.values(), ZERO_SNR | {"timestep_spacing": "trailing"}]:
        for steps in range(1, 101):
            assert np.isfinite(step_table(diffusion_schedule(sampler, steps, config)).stack()).all()


@pytest.mark.parametrize("prediction", ["sample", "flow_prediction"])
def test_a_denoiser_that_predicts_neither_epsilon_nor_v_is_refused(prediction: str) -> None:
    with pytest.raises(ModelError, match=f"prediction_type is '{prediction}'"):
        diffusion_schedule("euler", 10, {"prediction_type": prediction})


def test_heun_evaluates_twice_a_step_but_for_the_last() -> None:
    assert diffusion_schedule("heun", 10, CONFIGS["linspace"]).evaluations == 19
    assert diffusion_schedule("heun", 1, CONFIGS["linspace"]).evaluations == 1
