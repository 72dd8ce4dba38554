"""Every sampler equals its counterpart in diffusers, alone and beside others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from chairlift.errors import ModelError
from chairlift.sampling.advance import HISTORY, Coefficients, advance
from chairlift.sampling.samplers import StepTable, step_table
from chairlift.sampling.schedule import (
    DIFFUSION_SAMPLERS,
    FLOW_SAMPLERS,
    Schedule,
    diffusion_schedule,
    diffusion_scheduler,
    flow_schedule,
    flow_scheduler,
)

SHAPE = (4, 6, 5)
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
FLOW_CONFIGS: dict[str, dict[str, Any]] = {"shift 1": {"shift": 1.0}, "shift 3": {"shift": 3.0}}


def denoiser(latents: Tensor, timestep: Tensor) -> Tensor:
    """A smooth function in place of a network; ``timestep`` broadcasts against ``latents``."""
    mixed = latents.roll(1, dims=-1) * 0.3 + latents.flip(-2) * 0.2
    return torch.tanh(mixed + 0.5 * torch.sin(timestep / 100))


def draw(generator: torch.Generator) -> Tensor:
    return torch.randn(SHAPE, generator=generator)


def stock(scheduler: Any, steps: int, seed: int, diffusion: bool) -> Tensor:
    """The loop of the stock pipelines, one row."""
    generator = torch.Generator().manual_seed(seed)
    scheduler.set_timesteps(steps)
    latents = draw(generator)[None]
    if diffusion:
        latents = latents * scheduler.init_noise_sigma
    takes_generator = "Ancestral" in type(scheduler).__name__ or scheduler.config.get(
        "stochastic_sampling"
    )
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, timestep) if diffusion else latents
        output = denoiser(scaled, timestep.float())
        extra = {"generator": generator} if takes_generator else {}
        latents = scheduler.step(output, timestep, latents, return_dict=False, **extra)[0]
    return latents[0]


def ours(schedules: list[Schedule], seeds: list[int]) -> list[Tensor]:
    """All rows together; each stays until its table ends."""
    tables: list[StepTable] = [step_table(schedule) for schedule in schedules]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    latents = torch.stack(
        [
            draw(generator) * table.initial_scale
            for generator, table in zip(generators, tables, strict=True)
        ]
    )
    history = torch.zeros(len(tables), HISTORY, *SHAPE)
    done: dict[int, Tensor] = {}
    for step in range(max(table.evaluations for table in tables)):
        columns = np.stack([table.stack()[min(step, table.evaluations - 1)] for table in tables])
        coefficients = Coefficients(torch.from_numpy(columns), latents.dim())
        timesteps = coefficients.timestep.view(-1, 1, 1, 1)
        prediction = denoiser(latents * coefficients.input_scale, timesteps)
        noise = torch.zeros_like(latents)
        for row, table in enumerate(tables):
            if step < table.evaluations and table.next_z[step]:
                noise[row] = draw(generators[row])
        advance(latents, history, prediction, noise, coefficients)
        for row, table in enumerate(tables):
            if step == table.evaluations - 1:
                done[row] = latents[row].clone()
    return [done[row] for row in range(len(tables))]


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 20, 30])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("sampler", DIFFUSION_SAMPLERS)
def test_a_lone_row_equals_diffusers(sampler: str, config: str, steps: int) -> None:
    expected = stock(diffusion_scheduler(sampler, CONFIGS[config]), steps, seed=5, diffusion=True)
    [actual] = ours([diffusion_schedule(sampler, steps, CONFIGS[config])], [5])
    torch.testing.assert_close(actual, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("config", FLOW_CONFIGS)
@pytest.mark.parametrize("sampler", FLOW_SAMPLERS)
def test_a_lone_flow_row_equals_diffusers(sampler: str, config: str, steps: int) -> None:
    expected = stock(flow_scheduler(sampler, FLOW_CONFIGS[config]), steps, seed=6, diffusion=False)
    [actual] = ours([flow_schedule(sampler, steps, FLOW_CONFIGS[config])], [6])
    torch.testing.assert_close(actual, expected, rtol=2e-4, atol=2e-4)


def test_rows_of_all_samplers_steps_and_predictions_share_one_update() -> None:
    schedules = [
        diffusion_schedule(sampler, steps, CONFIGS[config])
        for steps, (sampler, config) in enumerate(
            ((sampler, config) for sampler in DIFFUSION_SAMPLERS for config in CONFIGS), start=2
        )
    ]
    schedules += [
        flow_schedule(sampler, steps, FLOW_CONFIGS["shift 3"])
        for steps, sampler in enumerate(FLOW_SAMPLERS, start=4)
    ]
    seeds = list(range(len(schedules)))
    together = ours(schedules, seeds)
    for schedule, seed, row in zip(schedules, seeds, together, strict=True):
        [alone] = ours([schedule], [seed])
        torch.testing.assert_close(row, alone, rtol=1e-5, atol=1e-5)


def test_a_denoiser_that_predicts_neither_epsilon_nor_v_is_refused() -> None:
    with pytest.raises(ModelError, match="prediction_type is 'sample'"):
        diffusion_schedule("euler", 10, {"prediction_type": "sample"})


def test_heun_evaluates_twice_a_step_but_for_the_last() -> None:
    assert diffusion_schedule("heun", 10, CONFIGS["linspace"]).evaluations == 19
    assert diffusion_schedule("heun", 1, CONFIGS["linspace"]).evaluations == 1
