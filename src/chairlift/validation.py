"""Makes requests: fills in a model's defaults and checks every value against its limits.

The HTTP edge and the offline API both come through here. Nothing is silently replaced: a value
that can't be is refused with its name, the value and the bound; one that is harmless but without
effect is named in the request's warnings.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from typing import TypeVar

from chairlift.card import ModelCard
from chairlift.errors import InvalidRequest
from chairlift.request import (
    IMAGE_FORMATS,
    VIDEO_FORMATS,
    GenerationRequest,
    LoraUse,
    OutputFormat,
)

MAX_IMAGES = 10
MAX_QUOTED = 80
"""Characters of a wrong value that are said back."""
MAX_PROMPT_CHARACTERS = 32_000
MAX_SEED = 2**63 - 1
MAX_GUIDANCE_SCALE = 100.0
MAX_LORA_SCALE = 10.0
MAX_PRIORITY = 10
MAX_PARTIAL_IMAGES = 3
MAX_DEADLINE_MS = 86_400_000.0
RANDOM_SEED = -1

Neutral = TypeVar("Neutral", float, None)


def create_request(
    card: ModelCard,
    *,
    id: str,
    prompt: str,
    negative_prompt: str | None = None,
    width: int | None = None,
    height: int | None = None,
    frames: int | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    true_cfg_scale: float | None = None,
    guidance_scale_2: float | None = None,
    guidance_rescale: float | None = None,
    cfg_truncation: float | None = None,
    cfg_normalization: float | None = None,
    loras: Sequence[LoraUse] = (),
    sampler: str | None = None,
    seed: int | None = None,
    n: int = 1,
    output_format: str | None = None,
    output_compression: int = 90,
    partial_images: int | None = None,
    preview_every: int | None = None,
    deadline_ms: float | None = None,
    priority: int = 0,
    caller: str = "",
) -> GenerationRequest:
    """Fill in the model's defaults and check every value against its limits.

    Raises:
        InvalidRequest: A value is out of bounds; ``param`` is the field's name in the HTTP API.
    """
    defaults, limits = card.defaults, card.limits
    width = defaults.width if width is None else width
    height = defaults.height if height is None else height
    frames = defaults.frames if frames is None else frames
    steps = defaults.steps if steps is None else steps
    sampler = defaults.sampler if sampler is None else sampler

    _check_text("prompt", prompt)
    _check_text("negative_prompt", negative_prompt or "")
    _check_text("user", caller)
    _check_size(card, width, height)
    _check_frames(card, frames)
    _check_range("num_inference_steps", steps, 1, limits.max_steps)
    guidance_scale, cfg_scale = _check_guidance(card, guidance_scale, true_cfg_scale)
    _check_loras(card, loras)
    _check_choice("sampler", sampler, card.samplers)
    _check_range("n", n, 1, MAX_IMAGES)
    _check_range("output_compression", output_compression, 0, 100)
    _check_range("priority", priority, -MAX_PRIORITY, MAX_PRIORITY)
    if deadline_ms is not None:
        _check_number("deadline_ms", deadline_ms, 1.0, MAX_DEADLINE_MS)
    return GenerationRequest(
        id=id,
        model=card.id,
        prompt=prompt,
        negative_prompt=negative_prompt,
        width=width,
        height=height,
        frames=frames,
        frames_per_second=defaults.frames_per_second,
        steps=steps,
        guidance_scale=guidance_scale,
        cfg_scale=cfg_scale,
        guidance_scale_2=_option(
            # Below 1 it would point away from the prompt; 1 is off.
            card,
            "guidance_scale_2",
            guidance_scale_2,
            MAX_GUIDANCE_SCALE,
            low=1.0,
            neutral=None,
        ),
        guidance_rescale=_option(card, "guidance_rescale", guidance_rescale, 1.0, neutral=0.0),
        cfg_truncation=_option(card, "cfg_truncation", cfg_truncation, 1.0, neutral=1.0),
        cfg_normalization=_option(card, "cfg_normalization", cfg_normalization, 10.0, neutral=0.0),
        loras=tuple(loras),
        sampler=sampler,
        seed=_checked_seed(seed, n),
        n=n,
        output_format=_output_format(card, output_format),
        output_compression=output_compression,
        preview_steps=_preview_steps(card, steps, partial_images, preview_every),
        deadline=None if deadline_ms is None else deadline_ms / 1000,
        priority=priority,
        caller=caller,
        warnings=_warnings(card, negative_prompt, cfg_scale),
    )


def _check_guidance(
    card: ModelCard, guidance_scale: float | None, true_cfg_scale: float | None
) -> tuple[float, float]:
    """The guidance scale, and the weight of classifier-free guidance."""
    rule = card.guidance
    if guidance_scale is None:
        guidance_scale = card.defaults.guidance_scale
    elif not rule.takes_guidance_scale and guidance_scale > 1:
        raise InvalidRequest(
            f"guidance_scale is {guidance_scale}; {card.id} has no embedded guidance, "
            "its classifier-free guidance is true_cfg_scale",
            param="guidance_scale",
        )
    if true_cfg_scale is None:
        true_cfg_scale = card.defaults.true_cfg_scale
    elif rule.cfg_field != "true_cfg_scale" and true_cfg_scale > 1:
        raise InvalidRequest(
            f"true_cfg_scale is {true_cfg_scale}; the classifier-free guidance of {card.id} "
            "is guidance_scale",
            param="true_cfg_scale",
        )
    _check_number("guidance_scale", guidance_scale, 0.0, MAX_GUIDANCE_SCALE)
    _check_number("true_cfg_scale", true_cfg_scale, 0.0, MAX_GUIDANCE_SCALE)
    cfg = guidance_scale if rule.cfg_field == "guidance_scale" else true_cfg_scale
    return float(guidance_scale), float(cfg + rule.cfg_offset)


def _option(
    card: ModelCard,
    name: str,
    value: float | None,
    high: float,
    *,
    low: float = 0.0,
    neutral: Neutral,
) -> float | Neutral:
    """The value of a field that only some families understand; ``neutral`` if it wasn't given.

    Raises:
        InvalidRequest: It was given to a family that doesn't, and isn't ``neutral`` either; or it
            is out of bounds.
    """
    if value is None:
        return neutral
    if name not in card.guidance.options:
        if value == neutral:  # As settings that are shown, and sent again, have it.
            return neutral
        raise InvalidRequest(f"{name} is {value}; {card.id} doesn't take it", param=name)
    _check_number(name, value, low, high)
    return float(value)


def _warnings(card: ModelCard, negative_prompt: str | None, cfg_scale: float) -> tuple[str, ...]:
    if negative_prompt and cfg_scale <= 1:
        rule = card.guidance
        return (
            "negative_prompt has no effect: classifier-free guidance is off, "
            f"{rule.cfg_field} is {rule.cfg_value(cfg_scale)} "
            f"and must be above {rule.cfg_value(1)}",
        )
    return ()


def _check_loras(card: ModelCard, loras: Sequence[LoraUse]) -> None:
    for number, lora in enumerate(loras):
        if lora.name not in card.loras:
            known = f"it must be one of {', '.join(card.loras)}" if card.loras else "there are none"
            raise InvalidRequest(f"lora is {_quote(lora.name)}; {known}", param="loras")
        if any(other.name == lora.name for other in loras[:number]):
            raise InvalidRequest(f"lora {lora.name!r} is given twice", param="loras")
        _check_number(f"scale of lora {lora.name!r}", lora.scale, -MAX_LORA_SCALE, MAX_LORA_SCALE)


def _preview_steps(
    card: ModelCard, steps: int, partial_images: int | None, preview_every: int | None
) -> tuple[int, ...]:
    """After which steps pictures are shown: spread evenly, or after every so many; never after the
    last, which the picture itself follows.
    """
    if (partial_images or preview_every) and card.is_video:
        raise InvalidRequest(f"{card.id} makes videos, which have no previews", param="model")
    if partial_images and preview_every is not None:
        raise InvalidRequest(
            f"preview_every is {preview_every} and partial_images is {partial_images}; "
            "give one of them",
            param="preview_every",
        )
    if preview_every is not None:
        _check_range("preview_every", preview_every, 1, card.limits.max_steps)
        return tuple(range(preview_every, steps, preview_every))
    count = partial_images or 0
    _check_range("partial_images", count, 0, MAX_PARTIAL_IMAGES)
    shown = {steps * (number + 1) // (count + 1) for number in range(count)}
    return tuple(sorted(shown - {0}))


def _output_format(card: ModelCard, name: str | None) -> OutputFormat:
    formats = VIDEO_FORMATS if card.is_video else IMAGE_FORMATS
    if name is None:
        return formats[0]
    _check_choice("output_format", name, formats)
    return next(known for known in formats if known == name)


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


def _check_number(name: str, value: float, low: float, high: float) -> None:
    param = "loras" if "lora" in name else name
    if not math.isfinite(value):
        raise InvalidRequest(
            f"{name} is {value}; it must be a finite number from {low} to {high}", param=param
        )
    if not low <= value <= high:
        raise InvalidRequest(f"{name} is {value}; it must be from {low} to {high}", param=param)


def _quote(text: str) -> str:
    """What a caller has sent, as far as it need be said back."""
    return repr(text[:MAX_QUOTED])


def _check_range(param: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidRequest(f"{param} is {value}; it must be from {low} to {high}", param=param)


def _check_choice(param: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InvalidRequest(
            f"{param} is {_quote(value)}; it must be one of {', '.join(choices)}", param=param
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
    longest = card.limits.max_side
    if longest is not None and max(width, height) > longest:
        raise InvalidRequest(
            f"size is {width}x{height}; {card.id} has positions for sides of at most {longest}",
            param="size",
        )


def _check_frames(card: ModelCard, frames: int) -> None:
    limits = card.limits
    if frames != 1 and not card.is_video:
        raise InvalidRequest(
            f"num_frames is {frames}; it must be 1: {card.id} makes pictures", param="num_frames"
        )
    _check_range("num_frames", frames, 1, limits.max_frames)
    if (frames - 1) % limits.frame_multiple:
        nearest = 1 + round((frames - 1) / limits.frame_multiple) * limits.frame_multiple
        raise InvalidRequest(
            f"num_frames is {frames}; it must be 1 more than a multiple of "
            f"{limits.frame_multiple}, the nearest is {nearest}",
            param="num_frames",
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
