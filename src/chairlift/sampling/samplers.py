"""The samplers, as tables of numbers.

Every sampler here is linear in the latents, the predicted clean latents, what it remembers of
the last three evaluations, and fresh noise. So a sampler is a function that turns a
:class:`~chairlift.sampling.schedule.Schedule` into one row of coefficients for each evaluation,
computed once on the host in float64; and *one* update (:func:`chairlift.sampling.advance.advance`)
serves rows of any samplers, steps and prediction types together.

Notation, as in the papers: ``x`` the latents, ``denoised`` the predicted clean latents, ``sigma``
the noise level, ``x = alpha * denoised + sigma * noise``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from chairlift.sampling.schedule import Levels, Schedule
from chairlift.sampling.unipc import unipc_coefficients


@dataclass(kw_only=True, slots=True)
class StepTable:
    """The coefficients of one row's evaluations; every column has one value for each. Samplers
    fill it in; after that nobody changes it.

    With ``x`` the latents, ``h0``, ``h1`` and ``h2`` the history, newest first, ``p`` the
    denoiser's output and ``z`` unit noise::

        denoised = denoised_x * x + denoised_p * p
        next x   = next_x * x + next_denoised * denoised + next_z * z
                   + next_h0 * h0 + next_h1 * h1 + next_h2 * h2
        next h0  = history_x * x + history_denoised * denoised + history_h0 * h0
        next h1  = h0
        next h2  = h1
    """

    initial_scale: float
    """What the initial unit noise is multiplied by."""
    timestep: Levels
    """What the denoiser is told."""
    input_scale: Levels
    """What the latents are multiplied by before the denoiser sees them."""
    denoised_x: Levels
    denoised_p: Levels
    next_x: Levels
    next_denoised: Levels
    next_z: Levels
    next_h0: Levels
    next_h1: Levels
    next_h2: Levels
    history_x: Levels
    history_denoised: Levels
    history_h0: Levels

    @classmethod
    def of(cls, schedule: Schedule) -> StepTable:
        """A table in which all that depends on the sampler is still zero."""
        denoised_x, denoised_p = _denoised(schedule)
        return cls(
            **{name: np.zeros(schedule.evaluations) for name in COLUMNS}
            | {
                "timestep": schedule.timesteps,
                "input_scale": schedule.input_scales,
                "denoised_x": denoised_x,
                "denoised_p": denoised_p,
            },
            initial_scale=schedule.initial_scale,
        )

    def stack(self) -> NDArray[np.float32]:
        """``(evaluations, len(COLUMNS))``."""
        columns = [getattr(self, name) for name in COLUMNS]
        return np.stack(columns, axis=1).astype(np.float32)

    @property
    def evaluations(self) -> int:
        return len(self.timestep)


COLUMNS = tuple(field.name for field in fields(StepTable) if field.name != "initial_scale")


def _ddim(schedule: Schedule, table: StepTable) -> None:
    """Deterministic DDIM (Song et al. 2021, equation 12 with eta 0). With ``alpha`` 1 it is the
    Euler step of Karras et al. 2022, algorithm 1, and with ``alpha = 1 - sigma`` the Euler step of
    rectified flow, so it serves those samplers too.
    """
    table.next_x = schedule.next_sigmas / schedule.sigmas
    table.next_denoised = schedule.next_alphas - schedule.alphas * table.next_x


def _euler_ancestral(schedule: Schedule, table: StepTable) -> None:
    """Euler steps that go lower than the next level and return to it with fresh noise
    (k-diffusion, ``sample_euler_ancestral``). For flow matching the noise is all fresh, which is
    diffusers' ``stochastic_sampling``.
    """
    sigma, sigma_next = schedule.sigmas, schedule.next_sigmas
    if schedule.prediction == "flow":
        table.next_denoised, table.next_z = schedule.next_alphas, sigma_next
        return
    sigma_up = np.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2)
    sigma_down = np.sqrt(sigma_next**2 - sigma_up**2)
    table.next_x = sigma_down / sigma
    table.next_denoised = 1 - table.next_x
    table.next_z = sigma_up


def _heun(schedule: Schedule, table: StepTable) -> None:
    """Heun's method (Karras et al. 2022, algorithm 1), each of its two evaluations a step of its
    own: first an Euler step, which remembers its slope ``d = (x - denoised) / sigma``, then from
    where that landed the correction ``dt * (d_next - d) / 2``.

    For flow matching too, since ``(x - denoised) / sigma`` is the velocity there.
    """
    predictor = np.arange(0, schedule.evaluations, 2)
    corrector = np.arange(1, schedule.evaluations, 2)
    sigma, sigma_next = schedule.sigmas[predictor], schedule.next_sigmas[predictor]
    table.next_x[predictor] = sigma_next / sigma
    table.next_denoised[predictor] = 1 - sigma_next / sigma
    table.history_x[predictor] = 1 / sigma
    table.history_denoised[predictor] = -1 / sigma
    half_step = (schedule.sigmas[corrector] - schedule.sigmas[corrector - 1]) / 2
    slope = half_step / schedule.sigmas[corrector]
    table.next_x[corrector] = 1 + slope
    table.next_denoised[corrector] = -slope
    table.next_h0[corrector] = -half_step


def _dpmpp_2m(schedule: Schedule, table: StepTable) -> None:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2, midpoint form): the history is the previous
    ``denoised``. The first step, and the last (which ends at ``sigma`` 0), are of first order.
    """
    _ddim(schedule, table)
    table.history_denoised = np.ones(schedule.evaluations)
    if schedule.evaluations < 3:
        return
    log_snr = np.log(schedule.alphas[1:]) - np.log(schedule.sigmas[1:])
    with np.errstate(divide="ignore"):  # The first level of flow matching has alpha 0.
        first_log_snr = np.log(schedule.alphas[0]) - np.log(schedule.sigmas[0])
    h_last = np.diff(np.concatenate([[first_log_snr], log_snr]))[:-1]
    h = np.diff(log_snr)
    middle = slice(1, schedule.evaluations - 1)
    correction = 0.5 * table.next_denoised[middle] * h / h_last
    table.next_denoised[middle] += correction
    table.next_h0[middle] = -correction


def _plms(schedule: Schedule, table: StepTable) -> None:
    """Pseudo linear multistep (Liu et al. 2022, PNDM without the Runge-Kutta start, as Stable
    Diffusion uses it): DDIM's step with a mean of the last outputs in place of the output, and
    with the first step taken twice. The history is the raw outputs.
    """
    count = schedule.evaluations
    denoised_x, denoised_p = table.denoised_x, table.denoised_p
    # The step as x' = from_x * x + from_p * mean output.
    _ddim(schedule, table)
    from_x = table.next_x + table.next_denoised * denoised_x
    from_p = table.next_denoised * denoised_p
    weights: list[tuple[float, ...]] = [
        (1, 0, 0, 0),
        (1 / 2, 1 / 2, 0, 0),
        (3 / 2, -1 / 2, 0, 0),
        (23 / 12, -4 / 3, 5 / 12, 0),
    ]
    weights += [(55 / 24, -59 / 24, 37 / 24, -9 / 24)] * count
    from_output, *from_history = from_p * np.array(weights[:count]).T
    if count > 1:
        # The second evaluation starts from where the first step began: undo that step.
        from_x[1] /= from_x[0]
        from_history[0][1] -= from_x[1] * from_p[0]
    # The output in terms of the latents and of the predicted clean latents.
    output_x, output_denoised = -denoised_x / denoised_p, 1 / denoised_p
    table.next_x = from_x + from_output * output_x
    table.next_denoised = from_output * output_denoised
    table.next_h0, table.next_h1, table.next_h2 = from_history
    table.history_x, table.history_denoised = output_x, output_denoised
    # The second output is not remembered; the first stays the newest.
    table.history_x[1:2] = table.history_denoised[1:2] = 0
    table.history_h0[1:2] = 1


def _unipc(schedule: Schedule, table: StepTable) -> None:
    """UniPC (Zhao et al. 2023): a multistep predictor, which the next evaluation corrects. The
    history is the previous ``denoised``.
    """
    assert schedule.solver is not None
    table.next_x, table.next_denoised, table.next_h0, table.next_h1, table.next_h2 = (
        unipc_coefficients(schedule, schedule.solver).T
    )
    table.history_denoised = np.ones(schedule.evaluations)


_SAMPLERS: dict[str, Callable[[Schedule, StepTable], None]] = {
    "euler": _ddim,
    "euler_ancestral": _euler_ancestral,
    "heun": _heun,
    "ddim": _ddim,
    "plms": _plms,
    "dpmpp_2m": _dpmpp_2m,
    "dpmpp_2m_karras": _dpmpp_2m,
    "unipc": _unipc,
}


def step_table(schedule: Schedule) -> StepTable:
    """The coefficients of every evaluation of ``schedule``."""
    table = StepTable.of(schedule)
    _SAMPLERS[schedule.sampler](schedule, table)
    return table


def _denoised(schedule: Schedule) -> tuple[Levels, Levels]:
    """How the clean latents follow from the latents and from the denoiser's output."""
    alpha, sigma = schedule.alphas, schedule.sigmas
    if schedule.prediction == "flow":
        return np.ones_like(sigma), -sigma
    if schedule.prediction == "epsilon":
        return 1 / alpha, -sigma / alpha
    norm = np.sqrt(alpha**2 + sigma**2)
    return alpha / norm**2, -sigma / norm
