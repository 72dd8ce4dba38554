"""The loop of the stock pipelines and ours, both with a function in place of the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from chairlift.sampling.advance import HISTORY, Coefficients, advance
from chairlift.sampling.samplers import StepTable, step_table
from chairlift.sampling.schedule import Schedule

SHAPE = (4, 6, 5)


def denoiser(latents: Tensor, timestep: Tensor) -> Tensor:
    """A smooth function in place of a network; ``timestep`` broadcasts against ``latents``."""
    mixed = latents.roll(1, dims=-1) * 0.3 + latents.flip(-2) * 0.2
    return torch.tanh(mixed + 0.5 * torch.sin(timestep / 100))


def draw(generator: torch.Generator) -> Tensor:
    return torch.randn(SHAPE, generator=generator)


def stock(scheduler: Any, seed: int = 5, noise: float = 1.0) -> Tensor:
    """The loop of the stock pipelines, one row, after the scheduler's ``set_timesteps``.

    Args:
        scheduler: A scheduler of diffusers.
        seed: Of all noise.
        noise: What the initial unit noise is multiplied by first.
    """
    generator = torch.Generator().manual_seed(seed)
    # Without it, a scheduler whose first timestep occurs twice starts at the second.
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    latents = draw(generator)[None] * noise * getattr(scheduler, "init_noise_sigma", 1.0)
    scale = getattr(scheduler, "scale_model_input", lambda latents, timestep: latents)
    takes_generator = "Ancestral" in type(scheduler).__name__ or scheduler.config.get(
        "stochastic_sampling"
    )
    for timestep in scheduler.timesteps:
        output = denoiser(scale(latents, timestep), timestep.float())
        extra = {"generator": generator} if takes_generator else {}
        latents = scheduler.step(output, timestep, latents, return_dict=False, **extra)[0]
    return latents[0]


def ours(schedules: list[Schedule], seeds: list[int], noise: float = 1.0) -> list[Tensor]:
    """All rows together; each stays until its table ends."""
    tables: list[StepTable] = [step_table(schedule) for schedule in schedules]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    latents = torch.stack(
        [
            draw(generator) * noise * table.initial_scale
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
        fresh = torch.zeros_like(latents)
        for row, table in enumerate(tables):
            if step < table.evaluations and table.next_z[step]:
                fresh[row] = draw(generators[row])
        advance(latents, history, prediction, fresh, coefficients)
        for row, table in enumerate(tables):
            if step == table.evaluations - 1:
                done[row] = latents[row].clone()
    return [done[row] for row in range(len(tables))]


def assert_same(schedule: Schedule, expected: Tensor, seed: int = 5, noise: float = 1.0) -> None:
    """A lone row of ``schedule`` ends where the stock loop did."""
    assert np.isfinite(step_table(schedule).stack()).all()
    [actual] = ours([schedule], [seed], noise)
    torch.testing.assert_close(actual, expected, rtol=2e-4, atol=2e-4)
