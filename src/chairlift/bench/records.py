"""What is kept of every request that was sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from chairlift.bench.client import Answer
from chairlift.bench.requests import PlannedRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One request. Times are in seconds, moments count from the start."""

    number: int
    group: str
    """What it is reported under."""
    body: Mapping[str, Any]
    """What was posted."""
    arrival_s: float
    """When the plan wanted it to be sent."""
    late_s: float
    """By how much this program was too slow."""
    held_s: float
    """How long it waited, after that, for room under ``--max-concurrency``."""
    sent_s: float
    finish_s: float | None
    """When its whole answer was there, or it failed; None if the run was ended before."""
    status: int | None
    """Of HTTP; None where there was no answer."""
    error: str | None
    """Its kind; None where all went well or the run was ended before."""
    message: str | None
    images: int
    queue_s: float | None
    """This and the following as the server says; None where it doesn't."""
    encode_s: float | None
    denoise_s: float | None
    decode_s: float | None
    total_s: float | None
    deadline_s: float | None
    """From the arrival; None where it has none."""
    alone_s: float | None
    """What it takes alone; None where nobody asked."""

    @property
    def is_completed(self) -> bool:
        return self.finish_s is not None and self.error is None

    @property
    def latency_s(self) -> float | None:
        """From the arrival that was planned."""
        return None if self.finish_s is None else self.finish_s - self.arrival_s

    @property
    def response_s(self) -> float | None:
        """From being sent."""
        return None if self.finish_s is None else self.finish_s - self.sent_s

    @property
    def service_s(self) -> float | None:
        """The server's time but for its queue."""
        if self.total_s is None or self.queue_s is None:
            return None
        return self.total_s - self.queue_s

    @property
    def outside_s(self) -> float | None:
        """Of the response what the server's engine doesn't count: the network, and HTTP."""
        if self.response_s is None or self.total_s is None:
            return None
        return self.response_s - self.total_s

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "latency_s": self.latency_s,
            "response_s": self.response_s,
            "service_s": self.service_s,
        }


def create_record(
    request: PlannedRequest,
    *,
    start: float,
    begun: float,
    sent: float,
    answer: Answer | None,
    alone_s: float | None,
) -> Record:
    """The record of a request.

    Args:
        request: As it was planned.
        start: Of the run, like the following moments on :func:`time.perf_counter`.
        begun: When it could have been sent, had there been room.
        sent: When it was sent.
        answer: None if the run was ended before.
        alone_s: Seconds that it takes alone.
    """
    timings = answer.timings if answer else None
    return Record(
        number=request.number,
        group=request.group,
        body=request.body,
        arrival_s=request.arrival_s,
        late_s=begun - start - request.arrival_s,
        held_s=sent - begun,
        sent_s=sent - start,
        finish_s=answer.finish - start if answer else None,
        status=answer.status if answer else None,
        error=answer.error if answer else None,
        message=answer.message if answer else None,
        images=answer.images if answer else 0,
        queue_s=timings.queue_s if timings else None,
        encode_s=timings.encode_s if timings else None,
        denoise_s=timings.denoise_s if timings else None,
        decode_s=timings.decode_s if timings else None,
        total_s=timings.total_s if timings else None,
        deadline_s=request.kind.deadline_s,
        alone_s=alone_s,
    )
