"""What a caller asked for, the rows it becomes, and the life of a row.

Nothing here is changed after it is made; where a row is, is kept by the engine's ledger. Requests
are made by :func:`chairlift.validation.create_request`, which checks every value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

from chairlift.errors import IllegalTransition

OutputFormat = Literal["png", "jpeg", "webp", "mp4"]
IMAGE_FORMATS: tuple[OutputFormat, ...] = ("png", "jpeg", "webp")
VIDEO_FORMATS: tuple[OutputFormat, ...] = ("mp4",)
MEDIA_TYPES: Mapping[OutputFormat, str] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "mp4": "video/mp4",
}


class RowId(NamedTuple):
    """Names one row: the request's id and the number of its image."""

    request_id: str
    image: int


class LoraUse(NamedTuple):
    """A LoRA that a request asks for."""

    name: str
    scale: float = 1.0


class Prompt(NamedTuple):
    """What the text encoders turn into conditioning."""

    text: str | None
    """None where no negative prompt was given, which for some checkpoints isn't an empty one."""
    loras: tuple[LoraUse, ...] = ()
    """They may change the text encoders too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRequest:
    """One call, with every default filled in and every value checked."""

    id: str
    model: str
    """The id of the model that is asked for; every value was checked against its card."""
    prompt: str
    negative_prompt: str | None
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    frames: int
    """1 is a picture."""
    frames_per_second: int
    """Of a video file."""
    steps: int
    """Sampler steps; a second-order sampler evaluates the denoiser more often."""
    guidance_scale: float
    """As the caller gave it; some denoisers are told it."""
    cfg_scale: float
    """Weight of classifier-free guidance, which is on above 1. It comes from ``guidance_scale`` or
    from ``true_cfg_scale``, as the model's family has it."""
    guidance_scale_2: float | None
    """Weight of classifier-free guidance in the low-noise expert; None is the same."""
    guidance_rescale: float
    """0 to 1: how far the guided output is brought back to the contrast of the plain one."""
    cfg_truncation: float
    """0 to 1: the share of the way from noise after which classifier-free guidance is off."""
    cfg_normalization: float
    """The guided output may be this much longer than the plain one; 0 is no bound."""
    loras: tuple[LoraUse, ...]
    sampler: str
    seed: int
    """Image ``i`` uses ``seed + i``."""
    n: int
    """Number of images, and so of rows."""
    output_format: OutputFormat
    output_compression: int
    """Quality of JPEG and WebP, 0 to 100; PNG is lossless and ignores it, MP4 too."""
    preview_steps: tuple[int, ...] = ()
    """The sampler steps after which the half-made pictures are wanted."""
    deadline: float | None = None
    """Seconds from acceptance by which the caller wants the pictures."""
    is_promised: bool = False
    """Whether it was accepted before, perhaps by an engine that is gone: no deadline refuses it."""
    priority: int = 0
    """Higher goes first."""
    caller: str = ""
    """Whose request it is, for the policy that is fair between callers."""
    owner: str = ""
    """Who alone may see and end it; empty is everybody."""
    warnings: tuple[str, ...] = ()
    """Values that were given and have no effect, a sentence each."""

    @property
    def size(self) -> str:
        """In pixels, like ``128x64``."""
        return f"{self.width}x{self.height}"

    @property
    def row_ids(self) -> tuple[RowId, ...]:
        return tuple(RowId(self.id, image) for image in range(self.n))

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.seed + image for image in range(self.n))

    @property
    def positive(self) -> Prompt:
        return Prompt(self.prompt, self.loras)

    @property
    def negative(self) -> Prompt:
        return Prompt(self.negative_prompt, self.loras)

    @property
    def settings(self) -> tuple[object, ...]:
        """Everything that shapes a picture but its size, its prompt and its seed."""
        return (
            self.negative_prompt,
            self.steps,
            self.guidance_scale,
            self.cfg_scale,
            self.guidance_scale_2,
            self.guidance_rescale,
            self.cfg_truncation,
            self.cfg_normalization,
            self.loras,
            self.sampler,
        )


class Status(IntEnum):
    """Where a row is. Terminal statuses come last, so that ``is_terminal`` is one comparison."""

    WAITING = 0
    ENCODING = 1
    DENOISING = 2
    DECODING = 3
    FINISHED = 4
    CANCELLED = 5
    FAILED = 6

    @property
    def is_terminal(self) -> bool:
        return self >= Status.FINISHED


_ENDS = frozenset({Status.CANCELLED, Status.FAILED})

TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.WAITING: _ENDS | {Status.ENCODING},
    Status.ENCODING: _ENDS | {Status.DENOISING},
    Status.DENOISING: _ENDS | {Status.DECODING},
    Status.DECODING: _ENDS | {Status.FINISHED},
    Status.FINISHED: frozenset(),
    Status.CANCELLED: frozenset(),
    Status.FAILED: frozenset(),
}


def transition(old: Status, new: Status) -> Status:
    """``new``, if a row may go there from ``old``.

    Raises:
        IllegalTransition: It may not.
    """
    if new not in TRANSITIONS[old]:
        raise IllegalTransition(f"a row can't go from {old.name} to {new.name}")
    return new
