"""What a model can do, as far as a caller needs to know it. Knows nothing of tensors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """What a request gets when it doesn't say."""

    width: int
    height: int
    steps: int
    guidance_scale: float
    sampler: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a request may ask for."""

    size_multiple: int
    """Both sides are a multiple of this many pixels."""
    max_pixels: int
    """Width times height."""
    max_steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """A model as the front end sees it. It crosses the process boundary as it is."""

    id: str
    """The name under which the model is served."""
    pipeline: str
    """The diffusers pipeline class that the checkpoint names."""
    parameters: int
    """Number of weights in all networks."""
    dtype: str
    device: str
    defaults: Defaults
    limits: Limits
    samplers: tuple[str, ...]
