"""Half-made pictures on their way to a caller."""

from __future__ import annotations

import time

from chairlift.engine.messages import Preview
from chairlift.request import GenerationRequest
from chairlift.server.schema import PartialImage


class Partials:
    """Numbers the half-made pictures of one request. After a crash the engine makes some of them
    again, which are passed over.

    Args:
        request: Whose they are.
    """

    def __init__(self, request: GenerationRequest) -> None:
        self._request = request
        self._shown: list[list[int]] = [[] for _ in range(request.n)]

    def number(self, preview: Preview) -> PartialImage | None:
        """The event of a preview; None if that step was shown before."""
        shown, request = self._shown[preview.row.image], self._request
        if shown and preview.step <= shown[-1]:
            return None
        shown.append(preview.step)
        return PartialImage(
            b64_json=preview.image,
            partial_image_index=len(shown) - 1,
            created_at=int(time.time()),
            size=request.size,
            output_format=request.output_format,
            image_index=preview.row.image,
            step=preview.step,
            steps=request.steps,
        )
