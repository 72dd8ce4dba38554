"""The bodies of the HTTP API: types and names. Bounds are checked by
:func:`chairlift.request.create_request`, which the offline API uses too.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from chairlift.card import ModelCard
from chairlift.engine.messages import Timings
from chairlift.errors import InvalidRequest
from chairlift.request import GenerationRequest, LoraUse
from chairlift.validation import create_request

_WITHOUT_MEANING = (
    "quality",
    "style",
    "background",
    "moderation",
    "input_fidelity",
)


class LoraBody(BaseModel):
    """A LoRA of the server's, and how strongly it is to work."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(description="One of the model's `loras`.")
    scale: float = Field(1.0, description="1 is as it was trained.")


class ImageGenerationBody(BaseModel):
    """``POST /v1/images/generations``: OpenAI's fields and, flat beside them, ours."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: str = Field(description="What the picture shows.")
    model: str | None = Field(None, description="The served model's id; may be left out.")
    n: int | None = Field(None, description="Number of pictures, 1 to 10.")
    size: str | None = Field(None, description="Width x height in pixels, or `auto`.")
    response_format: Literal["b64_json"] | None = Field(
        None, description="Pictures are in the answer; there are no URLs."
    )
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: int | None = Field(
        None, description="Quality of JPEG and WebP, 0 to 100; 90 by default."
    )
    stream: bool | None = Field(None, description="Streaming is not offered yet.")
    partial_images: int | None = Field(None, description="Needs streaming.")
    user: str | None = Field(None, description="The caller's name for its own user.")

    negative_prompt: str | None = Field(None, description="What the picture should not show.")
    num_inference_steps: int | None = Field(None, description="Sampler steps.")
    guidance_scale: float | None = Field(
        None, description="Weight of the prompt: of classifier-free guidance, or embedded."
    )
    true_cfg_scale: float | None = Field(
        None, description="Weight of classifier-free guidance where guidance_scale is embedded."
    )
    guidance_rescale: float | None = Field(
        None, description="0 to 1, how far guidance keeps the contrast (Stable Diffusion, SDXL)."
    )
    cfg_truncation: float | None = Field(
        None, description="0 to 1, the share of the way after which guidance is off (Z-Image)."
    )
    cfg_normalization: float | None = Field(
        None, description="Bound on how much longer guidance makes an output (Z-Image)."
    )
    loras: list[LoraBody] | None = Field(None, description="LoRAs to use, each with its scale.")
    seed: int | None = Field(
        None, description="Image i uses seed + i; -1 or none means random. The answer names it."
    )
    sampler: str | None = Field(None, description="One of the model's samplers.")
    priority: int | None = Field(None, description="-10 to 10; higher goes first.")
    deadline_ms: float | None = Field(
        None, description="By when the pictures are wanted, in milliseconds from acceptance."
    )

    quality: str | None = Field(None, description="Accepted, no effect.")
    style: str | None = Field(None, description="Accepted, no effect.")
    background: str | None = Field(None, description="Accepted, no effect.")
    moderation: str | None = Field(None, description="Accepted, no effect.")
    input_fidelity: str | None = Field(None, description="Accepted, no effect.")

    def to_request(self, card: ModelCard, id: str, caller: str = "") -> GenerationRequest:
        """The request, with the model's defaults filled in. ``user`` says whose it is, or else
        ``caller``.

        Raises:
            InvalidRequest: A value is out of bounds, or the model makes videos.
        """
        if card.is_video:
            raise InvalidRequest(
                f"model is {card.id!r}, which makes videos; they are not offered over HTTP yet, "
                "only by chairlift generate",
                param="model",
            )
        if self.stream:
            raise InvalidRequest("stream is true; streaming is not offered", param="stream")
        if self.partial_images:
            raise InvalidRequest(
                f"partial_images is {self.partial_images}; without streaming it must be 0",
                param="partial_images",
            )
        width, height = parse_size(self.size)
        return create_request(
            card,
            id=id,
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            width=width,
            height=height,
            steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            true_cfg_scale=self.true_cfg_scale,
            guidance_rescale=self.guidance_rescale,
            cfg_truncation=self.cfg_truncation,
            cfg_normalization=self.cfg_normalization,
            loras=[LoraUse(lora.name, lora.scale) for lora in self.loras or ()],
            sampler=self.sampler,
            seed=self.seed,
            n=1 if self.n is None else self.n,
            output_format=self.output_format,
            output_compression=90 if self.output_compression is None else self.output_compression,
            deadline_ms=self.deadline_ms,
            priority=self.priority or 0,
            caller=self.user or caller,
        )

    def warnings(self) -> list[str]:
        """One line for each field that was given and means nothing here."""
        given: dict[str, Any] = self.model_dump(include=set(_WITHOUT_MEANING), exclude_none=True)
        return [f"{name} has no effect here" for name in _WITHOUT_MEANING if name in given]


def parse_size(size: str | None) -> tuple[int | None, int | None]:
    """Width and height in pixels; None and ``auto`` are the model's own.

    Raises:
        InvalidRequest: It is not of the form ``128x128``.
    """
    if size is None or size == "auto":
        return None, None
    width, separator, height = size.partition("x")
    # Nine digits are enough to be refused as too large, and few enough to be parsed at once.
    sides = [side for side in (width, height) if side.isascii() and side.isdecimal()]
    if not separator or len(sides) != 2 or max(map(len, sides)) > 9:
        raise InvalidRequest(
            f"size is {size[:40]!r}; it must be width x height in pixels, like 128x128, or auto",
            param="size",
        )
    return int(width), int(height)


class ImageData(msgspec.Struct, frozen=True, kw_only=True):
    """One picture of an answer."""

    b64_json: bytes
    """Encoded as base64 on the wire."""
    seed: int


class ImagesAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """OpenAI's ImagesResponse, with ``timings`` and ``warnings``."""

    created: int
    data: list[ImageData]
    size: str
    output_format: str
    timings: Timings
    warnings: list[str] = []
