"""The ledger: where every accepted row is, from acceptance to its end.

It is the only place in which a status changes.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from chairlift.engine.messages import Timings
from chairlift.request import GenerationRequest, RowId, Status, transition


@dataclass(slots=True)
class _RowEntry:
    """One row."""

    evaluations: int
    status: Status = Status.WAITING
    entered: dict[Status, float] = field(default_factory=dict)
    """When the row came to each status."""
    image: bytes = b""

    def seconds(self, start: Status, end: Status) -> float:
        return self.entered[end] - self.entered[start]


@dataclass(slots=True)
class _Entry:
    """One request and its rows."""

    request: GenerationRequest
    rows: dict[RowId, _RowEntry]


@dataclass(frozen=True, slots=True)
class Completed:
    """A request whose rows have all finished."""

    images: list[bytes]
    timings: Timings


class Ledger:
    """Requests that were accepted and have not ended. Rows finish on other threads, so that
    taking out a request is one act.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._requests: dict[str, GenerationRequest] = {}

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def requests(self) -> Mapping[str, GenerationRequest]:
        """By id."""
        return MappingProxyType(self._requests)

    def open(self, request: GenerationRequest, evaluations: int, now: float) -> None:
        """Accept a request; its rows wait."""
        self._requests[request.id] = request
        rows = {
            row: _RowEntry(evaluations, entered={Status.WAITING: now}) for row in request.row_ids
        }
        self._entries[request.id] = _Entry(request, rows)

    def evaluations(self, row: RowId) -> int:
        """How often the denoiser is evaluated for this row."""
        return self._entries[row.request_id].rows[row].evaluations

    def move(self, row: RowId, status: Status, now: float) -> None:
        """Record that a row has come to ``status``.

        Raises:
            IllegalTransition: It can't, from where it is.
        """
        entry = self._entries[row.request_id].rows[row]
        entry.status = transition(entry.status, status)
        entry.entered[status] = now

    def finish(self, row: RowId, image: bytes, now: float) -> Completed | None:
        """Record a row's picture. If it was the request's last, the request is taken out; None if
        others are missing, or if the request is gone.
        """
        with self._lock:
            entry = self._entries.get(row.request_id)
            if entry is None:
                return None
            self.move(row, Status.FINISHED, now)
            entry.rows[row].image = image
            rows = list(entry.rows.values())
            if not all(other.status.is_terminal for other in rows):
                return None
            self._take(row.request_id)
        timings = Timings(
            queue_s=max(row.seconds(Status.WAITING, Status.ENCODING) for row in rows),
            encode_s=max(row.seconds(Status.ENCODING, Status.DENOISING) for row in rows),
            denoise_s=max(row.seconds(Status.DENOISING, Status.DECODING) for row in rows),
            decode_s=max(row.seconds(Status.DECODING, Status.FINISHED) for row in rows),
            total_s=max(row.seconds(Status.WAITING, Status.FINISHED) for row in rows),
            steps=entry.request.steps,
        )
        return Completed([row.image for row in rows], timings)

    def abandon(self, request_id: str, status: Status, now: float) -> tuple[RowId, ...]:
        """Take out a request that has failed or was cancelled; its rows, of which those that
        hadn't ended are moved to ``status``. None of them if it is gone already.
        """
        with self._lock:
            if request_id not in self._entries:
                return ()
            rows = self._entries[request_id].rows
            for row, entry in rows.items():
                if not entry.status.is_terminal:
                    self.move(row, status, now)
            self._take(request_id)
            return tuple(rows)

    def _take(self, request_id: str) -> _Entry:
        del self._requests[request_id]
        return self._entries.pop(request_id)
