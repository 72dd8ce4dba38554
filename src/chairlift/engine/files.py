"""Pixels to files, on threads of their own."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from PIL import Image

from chairlift.engine.decoder import Pixels
from chairlift.request import GenerationRequest


def encode_file(pixels: Pixels, request: GenerationRequest) -> bytes:
    """The file that the request asks for.

    Args:
        pixels: ``(height, width, 3)`` uint8 for a picture, ``(frames, height, width, 3)`` for a
            video.
        request: Says the format. PNG is lossless and ignores its compression, MP4 too.
    """
    if request.output_format == "mp4":
        return _encode_video(pixels, request.frames_per_second)
    options: dict[str, Any] = {"compress_level": 4}
    if request.output_format != "png":
        options = {"quality": request.output_compression}
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format=request.output_format, **options)
    return buffer.getvalue()


def _encode_video(pixels: Pixels, frames_per_second: int) -> bytes:
    """H.264 in MP4, in the colours and the pixel format that every player takes."""
    import av

    buffer = BytesIO()
    with av.open(buffer, "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=frames_per_second, options={"crf": "17"})
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in pixels:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()
