"""The decode stage: finished latents to pixels, a few rows at a time.

On CUDA it has a stream of its own, beside the ticks, and the host looks between two of them whether
a chunk is done. On a CPU a chunk is decoded between two ticks.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chairlift.engine.marks import Mark, make_mark
from chairlift.errors import DecodeFailed, NumericalError, RequestError
from chairlift.models.adapter import Adapter
from chairlift.request import RowId

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
"""``(height, width, 3)``, or ``(frames, height, width, 3)``."""
Entry = tuple[RowId, Tensor]
"""A row, and its final latents: float32 on the device."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A row's pixels, or why there are none."""

    row: RowId
    latents: Tensor
    """Float32 on the device."""
    outcome: Pixels | RequestError
    seconds: float = 0.0
    """What it took; its share of what those took that were decoded together."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What the device decodes."""

    entries: list[Entry]
    pixels: Tensor
    """Of each, on the host as soon as ``end`` is reached."""
    finite: Tensor
    """``(rows,)`` bool, likewise: whether the latents were."""
    start: Mark
    end: Mark

    def read(self) -> list[Decoded]:
        """The pixels, for which the host waits."""
        self.end.wait()
        each = self.end.seconds_since(self.start) / len(self.entries)
        return [
            Decoded(*entry, picture if good else NumericalError("the latents are not finite"), each)
            for entry, picture, good in zip(
                self.entries, self.pixels.numpy(), self.finite.tolist(), strict=True
            )
        ]


class Decoder:
    """A queue in front of an adapter's decoder.

    Args:
        adapter: The model. Its ``max_decode_rows`` bounds for how long a burst of finished rows
            holds up the next tick.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._waiting: deque[Entry] = deque()
        self._chunk: _Chunk | None = None
        self._stream: torch.cuda.Stream | None = None
        if adapter.device.type == "cuda":
            self._stream = torch.cuda.Stream(adapter.device)  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._waiting) + (len(self._chunk.entries) if self._chunk else 0)

    @property
    def next_rows(self) -> list[RowId]:
        """The rows that :meth:`run` may take up to decode or to wait for."""
        begun = [] if self._chunk is None else self._chunk.entries
        return [row for row, _ in [*begun, *self._next_entries()]]

    def submit(self, row: RowId, latents: Tensor) -> None:
        """Append a row's final latents to the queue."""
        self._waiting.append((row, latents))

    def cancel(self, rows: set[RowId]) -> None:
        """Forget these rows; those that the device has begun come all the same."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] not in rows)

    @torch.inference_mode()
    def run(self, wait: bool) -> list[Decoded]:
        """What is done; if the device has nothing to decode any more, it gets the next chunk.

        Args:
            wait: Until the chunk that the device has is done.
        """
        decoded = self._take(wait)
        if self._chunk is None and (entries := self._next_entries()):
            for _ in entries:
                self._waiting.popleft()
            try:
                self._chunk = self._begin(entries)
            except Exception as error:
                return decoded + self._decode_each(entries, error)
            decoded += self._take(wait=False)  # A CPU is done with it.
        return decoded

    def _take(self, wait: bool) -> list[Decoded]:
        chunk = self._chunk
        if chunk is None or not (wait or chunk.end.reached):
            return []
        self._chunk = None
        return chunk.read()

    def _next_entries(self) -> list[Entry]:
        """The rows at the head of the queue that have one shape, at most a chunk."""
        entries: list[Entry] = []
        for entry in islice(self._waiting, self._adapter.max_decode_rows):
            if entries and entry[1].shape != entries[0][1].shape:
                break
            entries.append(entry)
        return entries

    def _begin(self, entries: list[Entry]) -> _Chunk:
        """Give the device some rows to decode, behind the ticks that it already has."""
        with self._beside_the_ticks():
            start = make_mark(self._adapter.device)
            latents = torch.stack([values for _, values in entries])
            finite = latents.flatten(1).isfinite().all(dim=1)
            pixels = self._adapter.decode(latents.nan_to_num())
            return _Chunk(
                entries,
                pixels.to("cpu", non_blocking=True),
                finite.to("cpu", non_blocking=True),
                start,
                make_mark(self._adapter.device),
            )

    def _beside_the_ticks(self) -> AbstractContextManager[Any]:
        if self._stream is None:
            return nullcontext()
        self._stream.wait_stream(torch.cuda.current_stream(self._adapter.device))
        return torch.cuda.stream(self._stream)

    def _decode_each(self, entries: list[Entry], error: Exception) -> list[Decoded]:
        """One by one what could not be decoded together."""
        if len(entries) > 1:
            logger.warning("a decode of %d rows failed; trying each: %s", len(entries), error)
        return [self._decode_alone(entry) for entry in entries]

    def _decode_alone(self, entry: Entry) -> Decoded:
        try:
            [decoded] = self._begin([entry]).read()
        except Exception:
            logger.exception("a row could not be decoded")
            return Decoded(*entry, DecodeFailed("the picture could not be decoded"))
        return decoded
