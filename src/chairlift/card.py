"""What a model can do, as far as a caller needs to know it. Knows nothing of tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """What a request gets when it doesn't say."""

    width: int
    height: int
    steps: int
    guidance_scale: float
    sampler: str
    true_cfg_scale: float = 1.0
    frames: int = 1
    frames_per_second: int = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a request may ask for."""

    size_multiple: int
    """Both sides are a multiple of this many pixels."""
    max_pixels: int
    """Width times height."""
    max_steps: int
    max_side: int | None = None
    """The longest side that the denoiser has positions for, in pixels."""
    max_frames: int = 1
    """More than 1 makes it a video model."""
    frame_multiple: int = 1
    """The frames after the first are a multiple of this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Guidance:
    """How a family is guided."""

    cfg_field: Literal["guidance_scale", "true_cfg_scale"] = "guidance_scale"
    """The request's field that weights classifier-free guidance."""
    cfg_offset: float = 0.0
    """What is added to that field to get the weight in the usual sense, in which 1 is off."""
    embedded: bool = False
    """Whether the denoiser is told ``guidance_scale`` (guidance distillation)."""
    options: tuple[str, ...] = ()
    """The further fields that the family understands: some of ``guidance_rescale``,
    ``guidance_scale_2``, ``cfg_truncation``, ``cfg_normalization``."""

    def cfg_value(self, cfg_scale: float) -> float:
        """What a caller gives as :attr:`cfg_field` for a weight in the usual sense."""
        return cfg_scale - self.cfg_offset

    @property
    def takes_guidance_scale(self) -> bool:
        return self.embedded or self.cfg_field == "guidance_scale"


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """One network of a model."""

    name: str
    parameters: int
    bytes: int
    device: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """A model as the front end sees it. It crosses the process boundary as it is."""

    id: str
    """The name under which the model is served."""
    pipeline: str
    """The diffusers pipeline class that the checkpoint names."""
    components: tuple[Component, ...] = ()
    dtype: str
    device: str
    defaults: Defaults
    limits: Limits
    samplers: tuple[str, ...]
    guidance: Guidance = Guidance()
    loras: tuple[str, ...] = ()
    """The LoRAs that a request may name."""

    @property
    def parameters(self) -> int:
        """Number of weights in all networks."""
        return sum(component.parameters for component in self.components)

    @property
    def row_entries(self) -> int:
        """Places in a forward that a row with the default settings takes: 2 if it has
        classifier-free guidance.
        """
        defaults, rule = self.defaults, self.guidance
        return 2 if getattr(defaults, rule.cfg_field) + rule.cfg_offset > 1 else 1

    @property
    def is_video(self) -> bool:
        return self.limits.max_frames > 1
