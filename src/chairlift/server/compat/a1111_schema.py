"""What AUTOMATIC1111's clients send to ``txt2img``, and what it means here.

They send all fields, most of them with the value that is off. So a field that this server can't
serve is refused only where it would matter, and a field that nobody knows is ignored, as there.
The fields are those of its version 1.10; ``distilled_cfg_scale`` is Forge's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from chairlift.card import ModelCard
from chairlift.errors import InvalidRequest
from chairlift.metadata import SAMPLER_NAMES
from chairlift.server.compat.a1111_names import check_options, find_sampler, quote
from chairlift.server.schema import ImageGenerationBody, LoraBody
from chairlift.validation import MAX_IMAGES

PREVIEWS = 10
"""How often on the way a half-made picture is asked for, so that ``progress`` can show it."""

_OFF: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "enable_hr": ((False,), "there is no second pass at a higher resolution"),
    "firstpass_image": ((), "there is no second pass at a higher resolution"),
    "restore_faces": ((False,), "there is no face restoration"),
    "tiling": ((False,), "there are no pictures that tile"),
    "styles": (([],), "there are no saved styles"),
    "subseed_strength": ((0,), "the noise of two seeds is not mixed"),
    "seed_resize_from_h": ((-1, 0), "noise is drawn for the picture's own size"),
    "seed_resize_from_w": ((-1, 0), "noise is drawn for the picture's own size"),
    "s_churn": ((0,), "samplers are served without churn"),
    "s_noise": ((1,), "samplers are served with their own noise"),
    "s_min_uncond": ((0,), "guidance is not skipped at any step"),
    "refiner_checkpoint": (("", "None", "none"), "one model is served"),
    "disable_extra_networks": ((False,), "a LoRA that the prompt names is used"),
    "script_name": (("",), "there are no scripts"),
    "alwayson_scripts": (({},), "there are no scripts"),
    "infotext": (("",), "settings come as fields"),
}
"""The fields that can't be served: the values beside null that change nothing, and why no others
are taken.
"""

_ETA = {"euler_ancestral": 1.0, "ddim": 0.0}
"""The eta that samplers are served with; the others have none."""

_TAG = re.compile(r"<(\w+):([^<>]+)>")


class TextToImageBody(BaseModel):
    """``POST /sdapi/v1/txt2img``. What is left out or null is the model's default."""

    # Types are as lenient as there: "20" is a number.
    model_config = ConfigDict(extra="allow")

    prompt: str | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    sampler_name: str | None = None
    sampler_index: str | None = None
    """An old name of ``sampler_name``, which counts where that is missing."""
    scheduler: str | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    distilled_cfg_scale: float | None = None
    """The guidance scale that the denoiser is told; no effect where it isn't told any."""
    width: int | None = None
    height: int | None = None
    batch_size: int | None = None
    n_iter: int | None = None
    eta: float | None = None
    override_settings: dict[str, Any] | None = None
    send_images: bool | None = None

    @property
    def served(self) -> dict[str, Any]:
        """The fields that were looked at, as they came."""
        extra = self.model_extra or {}
        fields = self.model_dump(exclude=set(extra), exclude_none=True)
        return fields | {name: value for name, value in extra.items() if name in _OFF}

    def to_body(self, card: ModelCard) -> ImageGenerationBody:
        """The same request as ``/v1/images/generations`` takes it.

        Raises:
            InvalidRequest: A field has a value that this server can't serve.
            UnknownModel: It names a checkpoint that isn't served.
        """
        self._check_off()
        check_options(card, self.override_settings or {})
        sampler = find_sampler(card, self.sampler_name or self.sampler_index, self.scheduler)
        self._check_eta(sampler)
        prompt, loras = split_prompt(self.prompt or "")
        defaults = card.defaults
        steps = defaults.steps if self.steps is None else self.steps
        width = defaults.width if self.width is None else self.width
        height = defaults.height if self.height is None else self.height
        fields: dict[str, Any] = {
            "prompt": prompt,
            # Some checkpoints tell an empty one from none; there, as here, none is meant.
            "negative_prompt": self.negative_prompt or None,
            "n": self._count(),
            "size": f"{width}x{height}",
            "num_inference_steps": steps,
            "loras": loras,
            "seed": self.seed,
            "sampler": sampler,
            "preview_every": max(1, steps // PREVIEWS),
        }
        return ImageGenerationBody(**fields, **self._guidance(card))

    def _guidance(self, card: ModelCard) -> dict[str, Any]:
        rule = card.guidance
        scales: dict[str, Any] = {}
        if rule.embedded and self.distilled_cfg_scale is not None:
            scales["guidance_scale"] = self.distilled_cfg_scale
        if self.cfg_scale is not None:
            scales[rule.cfg_field] = rule.cfg_value(self.cfg_scale)
        return scales

    def _count(self) -> int:
        """The number of pictures."""
        count = 1
        for name, value in (("batch_size", self.batch_size), ("n_iter", self.n_iter)):
            value = 1 if value is None else value
            if value < 1:
                raise InvalidRequest(f"{name} is {value}; it must be from 1 on", param=name)
            count *= value
        if count > MAX_IMAGES:
            raise InvalidRequest(
                f"batch_size times n_iter is {count}; it must be from 1 to {MAX_IMAGES}",
                param="n_iter",
            )
        return count

    def _check_off(self) -> None:
        for name, value in (self.model_extra or {}).items():
            off, why = _OFF.get(name, ((value,), ""))
            if value is not None and value not in off:
                raise InvalidRequest(
                    f"{name} is {quote(value)}; it must be {quote(*off, None)}: {why}",
                    param=name,
                )

    def _check_eta(self, sampler: str) -> None:
        served = _ETA.get(sampler, self.eta)
        if self.eta is not None and self.eta != served:
            raise InvalidRequest(
                f"eta is {self.eta}; {SAMPLER_NAMES[sampler][0]} is served with {served}",
                param="eta",
            )


def split_prompt(text: str) -> tuple[str, list[LoraBody]]:
    """A prompt without its LoRA tags (``<lora:name:0.8>``), and the LoRAs.

    Raises:
        InvalidRequest: A tag names something else, or has no scale that can be served.
    """
    loras: list[LoraBody] = []

    def take(tag: re.Match[str]) -> str:
        if tag[1] not in ("lora", "lyco"):
            raise InvalidRequest(
                f"prompt has {quote(tag[0])}; of such tags, only <lora:name:scale> is served",
                param="prompt",
            )
        loras.append(_parse_lora(tag[0], tag[2]))
        return ""

    rest = _TAG.sub(take, text)
    return (rest.strip() if loras else rest), loras


def _parse_lora(tag: str, arguments: str) -> LoraBody:
    name, *scales = arguments.split(":")
    try:
        numbers = [float(scale) for scale in scales] or [1.0]
    except ValueError:
        raise InvalidRequest(
            f"prompt has {quote(tag)}; a LoRA's scale must be a number", param="prompt"
        ) from None
    # The first is for the text encoders, the second for the denoiser.
    if len(numbers) > 2 or len(set(numbers)) > 1:
        raise InvalidRequest(
            f"prompt has {quote(tag)}; a LoRA has one scale here, for all networks",
            param="prompt",
        )
    return LoraBody(name=name, scale=numbers[0])


def in_their_words(error: InvalidRequest, card: ModelCard) -> InvalidRequest:
    """The error with AUTOMATIC1111's name of the field, where the value is the one that came."""
    theirs = {"num_inference_steps": "steps", "loras": "prompt"}
    if not card.guidance.cfg_offset:
        theirs[card.guidance.cfg_field] = "cfg_scale"
    if card.guidance.embedded:
        theirs["guidance_scale"] = "distilled_cfg_scale"
    param = error.param or ""
    name = theirs.get(param, param)
    return InvalidRequest(error.message.replace(param, name, 1), param=name or None)
