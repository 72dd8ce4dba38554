"""The bodies of the HTTP API: types and names. Bounds are checked by
:func:`chairlift.validation.create_request`, which the offline API uses too; those that stand here
are only for the OpenAPI description.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from chairlift.card import ModelCard
from chairlift.engine.messages import Tick, Timings
from chairlift.errors import InvalidRequest
from chairlift.request import IMAGE_FORMATS, VIDEO_FORMATS, GenerationRequest, LoraUse
from chairlift.validation import (
    MAX_DEADLINE_MS,
    MAX_GUIDANCE_SCALE,
    MAX_IMAGES,
    MAX_LORA_SCALE,
    MAX_PARTIAL_IMAGES,
    MAX_PRIORITY,
    MAX_PROMPT_CHARACTERS,
    MAX_SEED,
    RANDOM_SEED,
    create_request,
)

_WITHOUT_MEANING = (
    "quality",
    "style",
    "background",
    "moderation",
    "input_fidelity",
    "complexity",
    "safety_identifier",
)


def _described(**bounds: Any) -> Any:
    return Field(json_schema_extra={**bounds})


Text = Annotated[str, _described(maxLength=MAX_PROMPT_CHARACTERS)]
Size = Annotated[str, _described(pattern="^(auto|[0-9]{1,9}x[0-9]{1,9})$")]
Count = Annotated[int, _described(minimum=1)]
Images = Annotated[int, _described(minimum=1, maximum=MAX_IMAGES)]
Format = Annotated[str, _described(enum=[*IMAGE_FORMATS, *VIDEO_FORMATS])]
Quality = Annotated[int, _described(minimum=0, maximum=100)]
Previews = Annotated[int, _described(minimum=0, maximum=MAX_PARTIAL_IMAGES)]
GuidanceScale = Annotated[float, _described(minimum=0, maximum=MAX_GUIDANCE_SCALE)]
LoraScale = Annotated[float, _described(minimum=-MAX_LORA_SCALE, maximum=MAX_LORA_SCALE)]
Seed = Annotated[int, _described(minimum=RANDOM_SEED, maximum=MAX_SEED)]
Priority = Annotated[int, _described(minimum=-MAX_PRIORITY, maximum=MAX_PRIORITY)]
Deadline = Annotated[float, _described(minimum=1, maximum=MAX_DEADLINE_MS)]


class LoraBody(BaseModel):
    """A LoRA of the server's, and how strongly it is to work."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(description="One of the model's `loras`.")
    scale: LoraScale = Field(1.0, description="1 is as it was trained.")


class ImageGenerationBody(BaseModel):
    """``POST /v1/images/generations``: OpenAI's fields and, flat beside them, ours."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: Text = Field(description="What the picture or video shows.")
    model: str | None = Field(None, description="The served model's id; may be left out.")
    n: Images | None = Field(None, description="Number of pictures or videos; 1 by default.")
    size: Size | None = Field(None, description="Width x height in pixels, or `auto`.")
    response_format: Literal["b64_json"] | None = Field(
        None, description="Pictures are in the answer; there are no URLs."
    )
    num_frames: Count | None = Field(
        None, description="Of a video, whose model has bounds for it; a picture has 1."
    )
    output_format: Format | None = Field(
        None, description="One of the model's; `mp4` is for videos."
    )
    output_compression: Quality | None = Field(
        None, description="Quality of JPEG and WebP; 90 by default."
    )
    stream: bool | None = Field(None, description="Whether the answer is a stream of events.")
    partial_images: Previews | None = Field(
        None, description="So many half-made pictures, spread evenly over the steps."
    )
    preview_every: Count | None = Field(
        None, description="A half-made picture after every so many steps."
    )
    user: Text | None = Field(None, description="The caller's name for its own user.")

    negative_prompt: Text | None = Field(None, description="What the picture should not show.")
    num_inference_steps: Count | None = Field(None, description="Sampler steps.")
    guidance_scale: GuidanceScale | None = Field(
        None, description="Weight of the prompt: of classifier-free guidance, or embedded."
    )
    true_cfg_scale: GuidanceScale | None = Field(
        None, description="Weight of classifier-free guidance where that isn't guidance_scale."
    )
    guidance_scale_2: GuidanceScale | None = Field(
        None, description="Weight for the second expert, from 1 on (Wan 2.2 with two experts)."
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
    seed: Seed | None = Field(
        None, description="Image i uses seed + i; -1 or none means random. The answer names it."
    )
    sampler: str | None = Field(None, description="One of the model's samplers.")
    priority: Priority | None = Field(None, description="Higher goes first; 0 by default.")
    deadline_ms: Deadline | None = Field(
        None, description="By when the pictures are wanted, in milliseconds from acceptance."
    )

    quality: str | None = Field(None, description="Accepted, no effect.")
    style: str | None = Field(None, description="Accepted, no effect.")
    background: str | None = Field(None, description="Accepted, no effect.")
    moderation: str | None = Field(None, description="Accepted, no effect.")
    input_fidelity: str | None = Field(None, description="Accepted, no effect.")
    complexity: str | None = Field(None, description="Accepted, no effect.")
    safety_identifier: str | None = Field(None, description="Accepted, no effect; see `user`.")

    def to_request(self, card: ModelCard, id: str, caller: str = "") -> GenerationRequest:
        """The request, with the model's defaults filled in. ``user`` says whose it is, or else
        ``caller``.

        Raises:
            InvalidRequest: A value is out of bounds.
        """
        width, height = parse_size(self.size)
        return create_request(
            card,
            id=id,
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            width=width,
            height=height,
            frames=self.num_frames,
            steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            true_cfg_scale=self.true_cfg_scale,
            guidance_scale_2=self.guidance_scale_2,
            guidance_rescale=self.guidance_rescale,
            cfg_truncation=self.cfg_truncation,
            cfg_normalization=self.cfg_normalization,
            loras=[LoraUse(lora.name, lora.scale) for lora in self.loras or ()],
            sampler=self.sampler,
            seed=self.seed,
            n=1 if self.n is None else self.n,
            output_format=self.output_format,
            output_compression=90 if self.output_compression is None else self.output_compression,
            partial_images=self.partial_images,
            preview_every=self.preview_every,
            deadline_ms=self.deadline_ms,
            priority=self.priority or 0,
            caller=self.user or caller,
        )

    def check_streaming(self) -> None:
        """Previews are events of a stream.

        Raises:
            InvalidRequest: They are asked for without one.
        """
        for name in ("partial_images", "preview_every"):
            if getattr(self, name) and not self.stream:
                raise InvalidRequest(
                    f"{name} is {getattr(self, name)}; it needs stream: true", param=name
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


class InputTokens(msgspec.Struct, frozen=True, kw_only=True):
    """As OpenAI's clients expect."""

    image_tokens: int = 0
    text_tokens: int = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing is counted in tokens here; OpenAI's clients expect the numbers."""

    input_tokens: int = 0
    input_tokens_details: InputTokens = InputTokens()
    output_tokens: int = 0
    total_tokens: int = 0


class StreamEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """An event of a stream."""


class PartialImage(StreamEvent, frozen=True, kw_only=True, tag="image_generation.partial_image"):
    """OpenAI's ImageGenPartialImageEvent, with ``image_index``, ``step`` and ``steps``."""

    b64_json: bytes
    partial_image_index: int
    created_at: int
    size: str
    output_format: str
    background: str = "opaque"
    quality: str = "auto"
    image_index: int
    """Which of the request's pictures."""
    step: int
    steps: int


class CompletedImage(StreamEvent, frozen=True, kw_only=True, tag="image_generation.completed"):
    """OpenAI's ImageGenCompletedEvent, with ``image_index``, ``seed``, ``timings`` and
    ``warnings``.
    """

    b64_json: bytes
    created_at: int
    size: str
    output_format: str
    background: str = "opaque"
    quality: str = "auto"
    usage: Usage = Usage()
    image_index: int
    seed: int
    timings: Timings
    warnings: list[str]


class Queued(msgspec.Struct, frozen=True, kw_only=True):
    """A request none of whose pictures has been in a tick."""

    id: str
    images: int
    width: int
    """Pixels."""
    height: int
    frames: int
    """1 is a picture."""
    eta_s: float | None
    """Predicted seconds from now until it is done; None until the engine has said it."""


class LiftReport(msgspec.Struct, frozen=True, kw_only=True):
    """The ticks since the last report, and how things stand."""

    ticks: list[Tick]
    running: int
    """Rows."""
    waiting: int
    backlog_seconds: float
    queue: list[Queued]
    own: list[str] | None
    """Which of the requests in ``ticks`` and ``queue`` the reader may end; None for all of them."""


class ErrorObject(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    """The field that is wrong, where one is."""
    code: str


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Every error, as an answer and as an event."""

    error: ErrorObject
