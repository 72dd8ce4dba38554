"""The decode stage: finished latents to pixels, a few rows at a time between ticks."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chairlift.errors import DecodeFailed, NumericalError, RequestError
from chairlift.models.adapter import Adapter
from chairlift.request import RowId

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
"""``(height, width, 3)``, or ``(frames, height, width, 3)``."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A row's pixels, or why there are none."""

    row: RowId
    latents: Tensor
    """Float32 on the device."""
    outcome: Pixels | RequestError


class Decoder:
    """A queue in front of an adapter's decoder.

    Args:
        adapter: The model. Its ``max_decode_rows`` bounds for how long a burst of finished rows
            holds up the next tick.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._waiting: deque[tuple[RowId, Tensor]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, row: RowId, latents: Tensor) -> None:
        """Append a row's final latents to the queue."""
        self._waiting.append((row, latents))

    def cancel(self, rows: set[RowId]) -> None:
        """Forget these rows."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] not in rows)

    @torch.inference_mode()
    def run(self) -> list[Decoded]:
        """Decode the rows at the head of the queue that have one shape, at most a chunk."""
        batch: list[tuple[RowId, Tensor]] = []
        while self._waiting and len(batch) < self._adapter.max_decode_rows:
            if batch and self._waiting[0][1].shape != batch[0][1].shape:
                break
            batch.append(self._waiting.popleft())
        return self._decode(batch) if batch else []

    def _decode(self, batch: list[tuple[RowId, Tensor]]) -> list[Decoded]:
        latents = torch.stack([values for _, values in batch])
        finite = latents.flatten(1).isfinite().all(dim=1)
        try:
            pixels = self._adapter.decode(latents.nan_to_num()).cpu().numpy()
        except Exception as error:
            if len(batch) > 1:
                logger.warning("a decode of %d rows failed; trying each: %s", len(batch), error)
                return [decoded for entry in batch for decoded in self._decode([entry])]
            logger.exception("a row could not be decoded")
            return [Decoded(*batch[0], DecodeFailed("the picture could not be decoded"))]
        return [
            Decoded(*entry, picture if good else NumericalError("the latents are not finite"))
            for entry, picture, good in zip(batch, pixels, finite.tolist(), strict=True)
        ]
