"""The preview stage: half-made pictures, rendered on the device and made into files on the image
threads. They may be missed, and never hold up a tick.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, wait
from io import BytesIO

import torch
from PIL import Image
from torch import Tensor

from chairlift.engine.decoder import Decoded
from chairlift.engine.messages import Preview
from chairlift.errors import RequestError
from chairlift.models.adapter import Adapter
from chairlift.request import GenerationRequest, RowId

logger = logging.getLogger(__name__)

MOST_WAITING = 8
"""Previews on their way to a file; while there are so many, further ones are left out."""
QUALITY = 80
"""Of JPEG and WebP."""


class Previews:
    """Shows rows before they are done.

    Args:
        adapter: The model.
        sink: Called with every preview, on the thread that wrote it.
        threads: Where files are written.
    """

    def __init__(
        self, adapter: Adapter, sink: Callable[[Preview], None], threads: Executor
    ) -> None:
        self._adapter = adapter
        self._sink = sink
        self._threads = threads
        self._room = threading.BoundedSemaphore(MOST_WAITING)
        self._last: dict[RowId, Future[None]] = {}
        """The last preview of each row that has one."""

    @torch.inference_mode()
    def show(
        self,
        denoised: Mapping[RowId, Tensor],
        steps: Mapping[RowId, int],
        requests: Mapping[str, GenerationRequest],
    ) -> None:
        """Render some rows of one group and have them written.

        Args:
            denoised: Predicted clean latents of each, float32 on the device.
            steps: The sampler steps that each has behind it.
            requests: By id.
        """
        previewer = self._adapter.previewer
        if not denoised or previewer is None or not previewer.ready:
            return
        rows = [row for row in denoised if self._room.acquire(blocking=False)]
        if not rows:
            return
        try:
            pictures = previewer.render(torch.stack([denoised[row] for row in rows]))
        except Exception:
            logger.exception("previews could not be rendered")
            for _ in rows:
                self._room.release()
            return
        for row, picture in zip(rows, pictures, strict=True):
            request = requests[row.request_id]
            before = self._last.get(row)
            self._last[row] = self._threads.submit(
                self._write, row, steps[row], picture, request, before
            )

    def learn(self, decoded: Decoded) -> None:
        """From a finished picture, if that isn't known well enough yet; on an image thread."""
        previewer = self._adapter.previewer
        if previewer is None or not previewer.learning or isinstance(decoded.outcome, RequestError):
            return
        try:
            previewer.observe(decoded.latents[None], torch.from_numpy(decoded.outcome)[None])
        except Exception:
            logger.exception("nothing could be learned for previews")

    def take(self, row: RowId) -> Future[None] | None:
        """The last preview of a row that is done or gone, which the whole picture waits for."""
        return self._last.pop(row, None)

    def _write(
        self,
        row: RowId,
        step: int,
        picture: Tensor,
        request: GenerationRequest,
        before: Future[None] | None,
    ) -> None:
        """On an image thread, which waits for the device so that the loop needn't, and for the
        row's preview ``before``, which was handed to these threads first.
        """
        try:
            image = encode_preview(picture, request)
            if before is not None:
                wait([before])
            self._sink(Preview(row=row, step=step, image=image))
        except Exception:
            logger.exception("a preview could not be written")
        finally:
            self._room.release()


def encode_preview(picture: Tensor, request: GenerationRequest) -> bytes:
    """A file of the request's format and size, as quickly as can be.

    Args:
        picture: ``(height, width, 3)`` uint8, of any size.
        request: Says the format and the size.
    """
    image = Image.fromarray(picture.cpu().numpy())
    image = image.resize((request.width, request.height), Image.Resampling.BICUBIC)
    options = {"compress_level": 1} if request.output_format == "png" else {"quality": QUALITY}
    buffer = BytesIO()
    image.save(buffer, format=request.output_format, **options)
    return buffer.getvalue()
