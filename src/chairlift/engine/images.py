"""Pixels to files, on threads of their own."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from PIL import Image

from chairlift.engine.decoder import Pixels
from chairlift.request import OutputFormat


def encode_image(pixels: Pixels, output_format: OutputFormat, quality: int) -> bytes:
    """A picture file.

    Args:
        pixels: ``(height, width, 3)`` uint8.
        output_format: PNG is lossless and ignores ``quality``.
        quality: 0 to 100.
    """
    options: dict[str, Any] = {"compress_level": 4} if output_format == "png" else {}
    if output_format != "png":
        options["quality"] = quality
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format=output_format, **options)
    return buffer.getvalue()
