"""What must be equal for two rows to share a forward."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchKey:
    """Only what the tensors force to be equal; a number that can be a tensor row is never here."""

    model: str
    """The denoiser that evaluates the row."""
    latent_shape: tuple[int, ...]
    """Shape of one row's latents, without the batch dimension."""
    conditioning: str
    """Name of the conditioning's structure: which tensors it has, and of what shape."""
