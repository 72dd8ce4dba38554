"""What a caller asked for, the rows it becomes, and the life of a row.

Nothing here is changed after it is made; where a row is, is kept by the engine's ledger.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

from chairlift.card import ModelCard
from chairlift.errors import IllegalTransition, InvalidRequest

OutputFormat = Literal["png", "jpeg", "webp"]
OUTPUT_FORMATS: tuple[OutputFormat, ...] = ("png", "jpeg", "webp")

MAX_IMAGES = 10
MAX_PROMPT_CHARACTERS = 32_000
MAX_SEED = 2**63 - 1
MAX_GUIDANCE_SCALE = 100.0
RANDOM_SEED = -1


class RowId(NamedTuple):
    """Names one row: the request's id and the number of its image."""

    request_id: str
    image: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRequest:
    """One call, with every default filled in and every value checked."""

    id: str
    prompt: str
    negative_prompt: str
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    steps: int
    """Sampler steps; a second-order sampler evaluates the denoiser more often."""
    guidance_scale: float
    """Classifier-free guidance is on above 1."""
    sampler: str
    seed: int
    """Image ``i`` uses ``seed + i``."""
    n: int
    """Number of images, and so of rows."""
    output_format: OutputFormat
    output_compression: int
    """Quality of JPEG and WebP, 0 to 100; PNG is lossless and ignores it."""

    @property
    def row_ids(self) -> tuple[RowId, ...]:
        return tuple(RowId(self.id, image) for image in range(self.n))

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.seed + image for image in range(self.n))


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


def create_request(
    card: ModelCard,
    *,
    id: str,
    prompt: str,
    negative_prompt: str = "",
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    sampler: str | None = None,
    seed: int | None = None,
    n: int = 1,
    output_format: str = "png",
    output_compression: int = 90,
) -> GenerationRequest:
    """Fill in the model's defaults and check every value against its limits.

    Raises:
        InvalidRequest: A value is out of bounds; ``param`` is the field's name in the HTTP API.
    """
    defaults, limits = card.defaults, card.limits
    width = defaults.width if width is None else width
    height = defaults.height if height is None else height
    steps = defaults.steps if steps is None else steps
    guidance_scale = defaults.guidance_scale if guidance_scale is None else guidance_scale
    sampler = defaults.sampler if sampler is None else sampler

    _check_text("prompt", prompt)
    _check_text("negative_prompt", negative_prompt)
    _check_size(card, width, height)
    _check_range("num_inference_steps", steps, 1, limits.max_steps)
    if not math.isfinite(guidance_scale):
        raise InvalidRequest(
            f"guidance_scale is {guidance_scale}; it must be a finite number "
            f"from 0.0 to {MAX_GUIDANCE_SCALE}",
            param="guidance_scale",
        )
    _check_range("guidance_scale", guidance_scale, 0.0, MAX_GUIDANCE_SCALE)
    _check_choice("sampler", sampler, card.samplers)
    _check_range("n", n, 1, MAX_IMAGES)
    _check_choice("output_format", output_format, OUTPUT_FORMATS)
    _check_range("output_compression", output_compression, 0, 100)
    return GenerationRequest(
        id=id,
        prompt=prompt,
        negative_prompt=negative_prompt,
        width=width,
        height=height,
        steps=steps,
        guidance_scale=float(guidance_scale),
        sampler=sampler,
        seed=_checked_seed(seed, n),
        n=n,
        output_format=_output_format(output_format),
        output_compression=output_compression,
    )


def _output_format(name: str) -> OutputFormat:
    return next(known for known in OUTPUT_FORMATS if known == name)


def _check_text(param: str, text: str) -> None:
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise InvalidRequest(
            f"{param} has {len(text)} characters; at most {MAX_PROMPT_CHARACTERS} are allowed",
            param=param,
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{param} has a lone surrogate at character {error.start}; it must be valid Unicode",
            param=param,
        ) from None


def _check_range(param: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidRequest(f"{param} is {value}; it must be from {low} to {high}", param=param)


def _check_choice(param: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidRequest(
            f"{param} is {value!r}; it must be one of {', '.join(choices)}", param=param
        )


def _check_size(card: ModelCard, width: int, height: int) -> None:
    multiple, limit = card.limits.size_multiple, card.limits.max_pixels
    if width < 1 or height < 1 or width % multiple or height % multiple:
        nearest = "x".join(
            str(max(multiple, round(side / multiple) * multiple)) for side in (width, height)
        )
        raise InvalidRequest(
            f"size is {width}x{height}; each side must be a multiple of {multiple}, "
            f"the nearest is {nearest}",
            param="size",
        )
    if width * height > limit:
        raise InvalidRequest(
            f"size is {width}x{height}, {width * height} pixels; at most {limit} are allowed",
            param="size",
        )


def _checked_seed(seed: int | None, n: int) -> int:
    if seed is None or seed == RANDOM_SEED:
        return secrets.randbelow(2**32)
    highest = MAX_SEED - n + 1
    if not 0 <= seed <= highest:
        raise InvalidRequest(
            f"seed is {seed}; it must be from 0 to {highest}, or {RANDOM_SEED} for a random one",
            param="seed",
        )
    return seed
