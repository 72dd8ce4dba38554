"""Pixels to files, on threads of their own."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from chairlift.engine.decoder import Pixels
from chairlift.metadata import embed
from chairlift.request import GenerationRequest

BT709 = 1
LIMITED_RANGE = 1
"""FFmpeg's numbers."""


def encode_file(pixels: Pixels, request: GenerationRequest, metadata: str | None = None) -> bytes:
    """The file that the request asks for.

    Args:
        pixels: ``(height, width, 3)`` uint8 for a picture, ``(frames, height, width, 3)`` for a
            video.
        request: Says the format. PNG is lossless and ignores its compression, MP4 too.
        metadata: The picture's settings, which the file then carries.
    """
    if request.output_format == "mp4":
        return _encode_video(pixels, request.frames_per_second, metadata)
    options: dict[str, Any] = {"compress_level": 4}
    if request.output_format != "png":
        options = {"quality": request.output_compression}
    if metadata is not None:
        options |= embed(metadata, request.output_format)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format=request.output_format, **options)
    return buffer.getvalue()


def _encode_video(pixels: Pixels, frames_per_second: int, metadata: str | None) -> bytes:
    """H.264 in MP4, in the colours and the pixel format that every player takes."""
    import av
    from av.video.reformatter import Colorspace

    # Not into memory: to bring the index to the front, FFmpeg opens the file a second time.
    with TemporaryDirectory(prefix="chairlift-") as folder:
        path = Path(folder) / "video.mp4"
        with av.open(path, "w", options={"movflags": "faststart"}) as container:
            if metadata is not None:
                container.metadata["comment"] = metadata
            stream = container.add_stream("libx264", rate=frames_per_second, options={"crf": "17"})
            stream.height, stream.width = pixels.shape[1:3]
            stream.pix_fmt = "yuv420p"
            # Said, because players guess: BT.601 for small videos, BT.709 for large ones.
            codec = stream.codec_context
            codec.colorspace = codec.color_primaries = codec.color_trc = BT709
            codec.color_range = LIMITED_RANGE
            for picture in pixels:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path.read_bytes()
