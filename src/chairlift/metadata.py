"""The settings of a picture, as its file carries them: an :class:`~chairlift.infotext.Infotext`.

PNG has it in a text chunk named ``parameters``; JPEG and WebP have it as EXIF's user comment.
There is this one text, and no second copy in a format of our own: what the community has no key
for is a further pair in it, and it is exact for every prompt.

Knows nothing of tensors, and of files only how a text lies in them.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngInfo

from chairlift import __version__
from chairlift.card import Guidance, ModelCard
from chairlift.errors import InvalidRequest
from chairlift.infotext import Infotext
from chairlift.request import GenerationRequest, LoraUse, OutputFormat

logger = logging.getLogger(__name__)

MAX_JPEG_EXIF = 65_533
"""Bytes that a segment of JPEG holds."""

_CHUNK = "parameters"
_UTF_16, _ASCII = b"UNICODE\0", b"ASCII\0\0\0"
"""EXIF's user comment starts with its encoding. The community's UTF-16 is big-endian."""

_SIZE = re.compile(r"(\d{1,9})x(\d{1,9})", re.ASCII)

SAMPLER_NAMES: Mapping[str, tuple[str, str | None]] = {
    "euler": ("Euler", None),
    "euler_ancestral": ("Euler a", None),
    "heun": ("Heun", None),
    "ddim": ("DDIM", None),
    "plms": ("PLMS", None),
    # Where no spacing is named, AUTOMATIC1111 takes Karras's for this sampler.
    "dpmpp_2m": ("DPM++ 2M", "Uniform"),
    "dpmpp_2m_karras": ("DPM++ 2M", "Karras"),
    "unipc": ("UniPC", None),
}
"""The community's names of our samplers: ``Sampler`` and ``Schedule type``. A sampler that isn't
here keeps its own name."""

_OUR_SAMPLERS = {
    (f"{sampler} Karras" if spacing == "Karras" else sampler).casefold(): ours
    for ours, (sampler, spacing) in SAMPLER_NAMES.items()
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureSettings:
    """What is needed to make a picture again. None: its file doesn't say."""

    prompt: str
    negative_prompt: str | None = None
    """None and an empty one may be different pictures."""
    steps: int
    sampler: str | None = None
    cfg_scale: float | None = None
    """Weight of classifier-free guidance in the usual sense, in which 1 is off."""
    distilled_cfg_scale: float | None = None
    """The guidance scale that the denoiser was told."""
    guidance_scale_2: float | None = None
    guidance_rescale: float | None = None
    cfg_truncation: float | None = None
    cfg_normalization: float | None = None
    seed: int | None = None
    """Of this picture alone."""
    width: int | None = None
    """Pixels."""
    height: int | None = None
    """Pixels."""
    frames: int | None = None
    """Of a video."""
    loras: tuple[LoraUse, ...] = ()
    output_compression: int | None = None
    """Quality of JPEG and WebP."""
    model: str | None = None
    unused: tuple[str, ...] = ()
    """The keys that mean nothing here."""

    @classmethod
    def of(cls, request: GenerationRequest, image: int, card: ModelCard) -> Self:
        """The settings of one of a request's pictures; those without effect are left out."""
        lossy = request.output_format in ("jpeg", "webp")
        return cls(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            steps=request.steps,
            sampler=request.sampler,
            cfg_scale=request.cfg_scale,
            distilled_cfg_scale=request.guidance_scale if card.guidance.embedded else None,
            guidance_scale_2=request.guidance_scale_2,
            guidance_rescale=request.guidance_rescale or None,
            cfg_truncation=None if request.cfg_truncation == 1 else request.cfg_truncation,
            cfg_normalization=request.cfg_normalization or None,
            seed=request.seeds[image],
            width=request.width,
            height=request.height,
            frames=request.frames if card.is_video else None,
            loras=request.loras,
            output_compression=request.output_compression if lossy else None,
            model=card.id,
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a text of ours or of another tool.

        Raises:
            InvalidRequest: It is too long, has no settings, or one of them isn't the number that
                it must be.
        """
        parts = Infotext.parse(text)
        pairs = dict(parts.pairs)
        pairs.pop("Version", None)
        steps = _pop_whole(pairs, "Steps")
        assert steps is not None  # An infotext is known by it.
        width, height = _pop_size(pairs)
        return cls(
            prompt=parts.prompt,
            negative_prompt=parts.negative_prompt,
            steps=steps,
            sampler=_pop_sampler(pairs),
            cfg_scale=_pop_number(pairs, "CFG scale"),
            distilled_cfg_scale=_pop_number(pairs, "Distilled CFG Scale"),
            guidance_scale_2=_pop_number(pairs, "Guidance scale 2"),
            guidance_rescale=_pop_number(pairs, "Guidance rescale"),
            cfg_truncation=_pop_number(pairs, "CFG truncation"),
            cfg_normalization=_pop_number(pairs, "CFG normalization"),
            seed=_pop_whole(pairs, "Seed"),
            width=width,
            height=height,
            frames=_pop_whole(pairs, "Frames"),
            loras=_pop_loras(pairs),
            output_compression=_pop_whole(pairs, "Quality"),
            model=pairs.pop("Model", None),
            unused=tuple(pairs),  # What is left of them.
        )

    def __str__(self) -> str:
        """The text. :meth:`parse` makes equal settings of it."""
        sampler, spacing = SAMPLER_NAMES.get(self.sampler or "", (self.sampler, None))
        pairs: dict[str, str | float | None] = {
            "Steps": self.steps,
            "Sampler": sampler,
            "Schedule type": spacing,
            "CFG scale": self.cfg_scale,
            "Distilled CFG Scale": self.distilled_cfg_scale,
            "Seed": self.seed,
            "Size": None if self.width is None else f"{self.width}x{self.height}",
            "Frames": self.frames,
            "Model": self.model,
            "Guidance scale 2": self.guidance_scale_2,
            "Guidance rescale": self.guidance_rescale,
            "CFG truncation": self.cfg_truncation,
            "CFG normalization": self.cfg_normalization,
            "Quality": self.output_compression,
        }
        for number, lora in enumerate(self.loras, 1):
            pairs |= {f"Lora {number}": lora.name, f"Lora {number} scale": lora.scale}
        pairs["Version"] = f"chairlift {__version__}"
        given = {key: _format(value) for key, value in pairs.items() if value is not None}
        return str(Infotext(self.prompt, self.negative_prompt, given))

    def arguments(self, guidance: Guidance) -> dict[str, Any]:
        """What :func:`chairlift.validation.create_request` makes the same picture from, for a
        model that is guided like this. What the file doesn't say is not in it.
        """
        arguments: dict[str, Any] = {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "steps": self.steps,
            "sampler": self.sampler,
            "guidance_scale_2": self.guidance_scale_2,
            "guidance_rescale": self.guidance_rescale,
            "cfg_truncation": self.cfg_truncation,
            "cfg_normalization": self.cfg_normalization,
            "seed": self.seed,
            "width": self.width,
            "height": self.height,
            "frames": self.frames,
            "loras": self.loras,
            "output_compression": self.output_compression,
        }
        if guidance.embedded:
            arguments["guidance_scale"] = self.distilled_cfg_scale
        if self.cfg_scale is not None:
            arguments[guidance.cfg_field] = guidance.cfg_value(self.cfg_scale)
        return {name: value for name, value in arguments.items() if value is not None}


def embed(text: str, output_format: OutputFormat) -> dict[str, Any]:
    """The options with which Pillow writes ``text`` into a PNG, JPEG or WebP."""
    if output_format == "png":
        chunks = PngInfo()
        chunks.add_text(_CHUNK, text)  # As tEXt; what isn't Latin-1, as iTXt.
        return {"pnginfo": chunks}
    exif = _exif(_UTF_16 + text.encode("utf-16-be"))
    if output_format == "jpeg" and len(exif) > MAX_JPEG_EXIF:
        logger.warning(
            "a JPEG is written without its settings: they have %d bytes, and at most %d fit",
            len(exif),
            MAX_JPEG_EXIF,
        )
        return {}
    return {"exif": exif}


def extract(picture: Image.Image) -> str | None:
    """The text in an opened PNG, JPEG or WebP, whose pixels are not decoded; None if there is
    none.
    """
    if picture.format == "PNG":
        return picture.info.get(_CHUNK)
    comment = picture.getexif().get_ifd(IFD.Exif).get(Base.UserComment)
    if not isinstance(comment, bytes):
        return comment if isinstance(comment, str) else None
    if not comment.startswith(_UTF_16):
        return comment.removeprefix(_ASCII).decode("utf-8", "replace")
    encoded = comment.removeprefix(_UTF_16)
    text = encoded.decode("utf-16-be", "replace")
    # Some tools write little-endian, and nothing in the file says so.
    return text if "Steps:" in text else encoded.decode("utf-16-le", "replace")


def _exif(comment: bytes) -> bytes:
    """EXIF with nothing but a user comment: a directory that points to a directory that points to
    the comment. Not Pillow's, which says that its type is BYTE; the community's readers want
    UNDEFINED, as the standard has it.
    """
    long, undefined = 4, 7
    header = struct.pack(">2sHI", b"MM", 42, 8)
    directory = struct.pack(">HHHIII", 1, IFD.Exif, long, 1, 26, 0)
    exif_directory = struct.pack(">HHHIII", 1, Base.UserComment, undefined, len(comment), 44, 0)
    return b"Exif\0\0" + header + directory + exif_directory + comment


def _format(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() else repr(value)


def _pop_whole(pairs: dict[str, str], key: str) -> int | None:
    value = pairs.pop(key, None)
    try:
        return None if value is None else int(value)
    except ValueError:
        raise InvalidRequest(f"{key} is {value!r:.40}; it must be a whole number") from None


def _pop_number(pairs: dict[str, str], key: str) -> float | None:
    value = pairs.pop(key, None)
    try:
        return None if value is None else float(value)
    except ValueError:
        raise InvalidRequest(f"{key} is {value!r:.40}; it must be a number") from None


def _pop_size(pairs: dict[str, str]) -> tuple[int | None, int | None]:
    value = pairs.pop("Size", None)
    if value is None:
        return None, None
    sides = _SIZE.fullmatch(value)
    if sides is None:
        raise InvalidRequest(f"Size is {value!r:.40}; it must be width x height, like 128x128")
    return int(sides[1]), int(sides[2])


def _pop_sampler(pairs: dict[str, str]) -> str | None:
    """Our name of the sampler. One that has no counterpart keeps its name, and will be refused."""
    sampler, spacing = pairs.pop("Sampler", None), pairs.pop("Schedule type", None)
    if sampler is None:
        return None
    name = sampler.removesuffix(" Karras")  # Older texts have the spacing in the name, or none.
    karras = f"{name} Karras"
    if name != sampler or spacing == "Karras":
        sampler = karras
    elif spacing == "Automatic" and karras.casefold() in _OUR_SAMPLERS:
        sampler = karras  # As AUTOMATIC1111 chooses.
    elif spacing not in (None, "Automatic", "Uniform"):
        pairs["Schedule type"] = spacing
    return _OUR_SAMPLERS.get(sampler.casefold(), sampler)


def _pop_loras(pairs: dict[str, str]) -> tuple[LoraUse, ...]:
    loras: list[LoraUse] = []
    while (name := pairs.pop(f"Lora {len(loras) + 1}", None)) is not None:
        scale = _pop_number(pairs, f"Lora {len(loras) + 1} scale")
        loras.append(LoraUse(name, 1.0 if scale is None else scale))
    return tuple(loras)
