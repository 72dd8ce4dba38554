"""One line for every request that has ended, and for every one that was refused."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from chairlift.engine.ride import Ride
from chairlift.errors import RequestCancelled, RequestError
from chairlift.server.request_id import request_id

logger = logging.getLogger("chairlift.requests")

STAGES = ("queue_s", "encode_s", "denoise_s", "decode_s")
MAX_PATH = 200
"""Characters of a path that are logged."""


class RequestLog:
    """Logs every ride that it is called with.

    Args:
        prompts: Whether the lines have the prompts.
    """

    def __init__(self, prompts: bool = False) -> None:
        self._prompts = prompts

    def __call__(self, ride: Ride) -> None:
        """Log a ride that has ended; in the context in which it was submitted."""
        fields = describe(ride)
        if self._prompts:
            fields["prompt"] = ride.request.prompt
        logger.info("request", extra={"fields": fields})


def log_refused(error: RequestError, method: str, path: str) -> None:
    """Log a request that was not accepted; without the message, which may quote the prompt."""
    fields = {
        "outcome": "refused",
        "request_id": request_id.get(),
        "code": error.code,
        "param": error.param,
        "method": method,
        "path": path[:MAX_PATH],
    }
    logger.info("request", extra={"fields": fields})


def describe(ride: Ride) -> dict[str, Any]:
    """What operators want to know of a ride that has ended. No prompt is in it.

    To be called in the context in which the ride was submitted, which has the caller's id.
    """
    request = ride.request
    return {
        "outcome": ride.outcome,
        "request_id": request_id.get(),
        "id": request.id,
        "kind": _kind(ride),
        "code": _code(ride),
        "size": request.size,
        "frames": request.frames,
        "n": request.n,
        "steps": request.steps,
        "sampler": request.sampler,
        **_seconds(ride),
        "ticks": ride.ticks,
        "rows_mean": round(ride.riders / ride.ticks, 2) if ride.ticks else None,
        "rows_max": ride.most_riders if ride.ticks else None,
        "crashes": ride.crashes,
    }


def _kind(ride: Ride) -> str:
    if ride.is_job:
        return "job"
    return "stream" if ride.is_streamed else "images"


def _code(ride: Ride) -> str | None:
    """The code of the error that it ended with."""
    if ride.outcome in ("finished", "kept"):
        return None
    if ride.outcome == "cancelled":
        return RequestCancelled.code
    error = ride.answer.exception()
    return error.code if isinstance(error, RequestError) else RequestError.code


def _seconds(ride: Ride) -> dict[str, float | None]:
    """Where the time went; of what has no picture only the total is known."""
    seconds: dict[str, float | None] = dict.fromkeys(STAGES)
    if ride.outcome == "finished":
        timings = ride.answer.result().timings
        seconds = {name: getattr(timings, name) for name in STAGES}
    seconds["total_s"] = asyncio.get_running_loop().time() - ride.submitted
    seconds["predicted_s"] = ride.predicted_s
    return {name: value and round(value, 4) for name, value in seconds.items()}
