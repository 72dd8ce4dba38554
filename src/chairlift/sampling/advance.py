"""The one update that advances every row, whatever its sampler, step or prediction type."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from chairlift.sampling.samplers import COLUMNS

_TIMESTEP = COLUMNS.index("timestep")
_INPUT_SCALE = COLUMNS.index("input_scale")
_FIRST_UPDATE_COLUMN = COLUMNS.index("denoised_x")

HISTORY = 3
"""How many evaluations a row remembers."""


@dataclass(frozen=True, slots=True)
class Coefficients:
    """The coefficients of this tick, gathered from the rows' step tables.

    Args:
        columns: ``(rows, len(COLUMNS))``, float32.
        dimensions: Number of dimensions of the latents, the rows' included.
    """

    columns: Tensor
    dimensions: int

    @property
    def timestep(self) -> Tensor:
        """``(rows,)``."""
        return self.columns[:, _TIMESTEP]

    @property
    def input_scale(self) -> Tensor:
        """``(rows, 1, …)``, to multiply latents with."""
        return self.columns[:, _INPUT_SCALE].view(-1, *self._ones)

    def update(self) -> tuple[Tensor, ...]:
        """``denoised_x`` and all that follow it, each ``(rows, 1, …)``."""
        columns = self.columns[:, _FIRST_UPDATE_COLUMN:].unbind(dim=1)
        return tuple(column.view(-1, *self._ones) for column in columns)

    @property
    def _ones(self) -> tuple[int, ...]:
        return (1,) * (self.dimensions - 1)


def advance(
    latents: Tensor,
    history: Tensor,
    prediction: Tensor,
    noise: Tensor | None,
    coefficients: Coefficients,
) -> Tensor:
    """One sampler update of all rows, in place and without a host synchronisation. Returns the
    predicted clean latents, shaped like ``latents``.

    Args:
        latents: ``(rows, …)``, float32; becomes the next latents.
        history: ``(rows, HISTORY, …)``, float32: what each row's sampler remembers, newest
            first; becomes the next.
        prediction: Like ``latents``, in any float type: the denoiser's output after guidance.
        noise: Like ``latents``: unit noise, finite in every row; None if no row takes any.
        coefficients: This tick's.
    """
    (
        denoised_x,
        denoised_p,
        next_x,
        next_denoised,
        next_z,
        next_h0,
        next_h1,
        next_h2,
        history_x,
        history_denoised,
        history_h0,
    ) = coefficients.update()
    denoised = denoised_x * latents
    denoised.addcmul_(denoised_p, prediction.to(latents.dtype))
    h0, h1, h2 = history.unbind(dim=1)
    remembered = history_x * latents
    remembered.addcmul_(history_denoised, denoised).addcmul_(history_h0, h0)
    latents.mul_(next_x).addcmul_(next_denoised, denoised)
    latents.addcmul_(next_h0, h0).addcmul_(next_h1, h1).addcmul_(next_h2, h2)
    if noise is not None:
        latents.addcmul_(next_z, noise)
    h2.copy_(h1)
    h1.copy_(h0)
    h0.copy_(remembered)
    return denoised
