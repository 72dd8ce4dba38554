"""The ledger: where every accepted row is, from acceptance to its end.

It is the only place in which a status changes.
"""

from __future__ import annotations

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
    eta_s: float = 0.0


class Ledger:
    """Requests that were accepted and have not ended."""

    def __init__(self) -> None:
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

    def predict(self, request_id: str, eta_s: float) -> None:
        """Remember in how many seconds a request is predicted to be done."""
        self._entries[request_id].eta_s = eta_s

    def eta(self, request_id: str) -> float:
        """What was predicted when the request was accepted."""
        return self._entries[request_id].eta_s

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

    def finish(self, row: RowId, image: bytes, now: float) -> bool:
        """Record a row's picture. Whether it was the request's last."""
        self.move(row, Status.FINISHED, now)
        entry = self._entries[row.request_id]
        entry.rows[row].image = image
        return all(other.status.is_terminal for other in entry.rows.values())

    def close(self, request_id: str) -> tuple[list[bytes], Timings]:
        """Take out a request whose rows have all finished: its pictures and its times."""
        entry = self._take(request_id)
        rows = list(entry.rows.values())
        timings = Timings(
            queue_s=max(row.seconds(Status.WAITING, Status.ENCODING) for row in rows),
            encode_s=max(row.seconds(Status.ENCODING, Status.DENOISING) for row in rows),
            denoise_s=max(row.seconds(Status.DENOISING, Status.DECODING) for row in rows),
            decode_s=max(row.seconds(Status.DECODING, Status.FINISHED) for row in rows),
            total_s=max(row.seconds(Status.WAITING, Status.FINISHED) for row in rows),
            steps=entry.request.steps,
        )
        return [row.image for row in rows], timings

    def abandon(self, request_id: str, status: Status, now: float) -> tuple[RowId, ...]:
        """Take out a request that has failed or was cancelled; its rows, of which those that
        hadn't ended are moved to ``status``.
        """
        rows = self._entries[request_id].rows
        for row, entry in rows.items():
            if not entry.status.is_terminal:
                self.move(row, status, now)
        self._take(request_id)
        return tuple(rows)

    def _take(self, request_id: str) -> _Entry:
        del self._requests[request_id]
        return self._entries.pop(request_id)
