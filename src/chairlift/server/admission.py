"""Admission: which requests are taken."""

from __future__ import annotations

import math
import uuid
from typing import Literal

from chairlift.engine.ride import Ride
from chairlift.errors import QueueFull, UnknownModel
from chairlift.request import GenerationRequest
from chairlift.server.access import caller
from chairlift.server.idempotency import body_digest
from chairlift.server.jobs.job import Job
from chairlift.server.schema import ImageGenerationBody
from chairlift.server.state import ServerState

MAX_RETRY_SECONDS = 120


def admit(
    state: ServerState, body: ImageGenerationBody, kind: Literal["req", "job"]
) -> GenerationRequest:
    """The request that a body asks for, if it is valid and there is room for it.

    Raises:
        InvalidRequest: A value is out of bounds.
        UnknownModel: It names a model that isn't served.
        QueueFull: As many rows as are kept are already accepted.
    """
    card = state.client.card
    if body.model not in (None, card.id):
        raise UnknownModel(
            f"model is {body.model!r}; the model that is served is {card.id!r}", param="model"
        )
    request = body.to_request(card, id=f"{kind}_{uuid.uuid4().hex}", caller=caller.get())
    pending = state.client.pending_rows
    if pending + request.n > state.max_queue:
        wait = math.ceil(state.client.activity.backlog_seconds)
        raise QueueFull(
            f"{pending} pictures are accepted and not done, of at most {state.max_queue}",
            retry_after=max(1, min(MAX_RETRY_SECONDS, wait)),
        )
    return request


async def admit_job(
    state: ServerState, body: ImageGenerationBody, key: str | None
) -> tuple[Job, bool]:
    """The job that a body asks for, and whether it is new, or the one that came with the same
    idempotency key before.

    Raises:
        RequestError: It isn't accepted.
    """
    digest = body_digest(body)
    if key and (known := await state.jobs.find(key, digest)):
        return known, False
    request = admit(state, body, "job")
    return await state.jobs.submit(
        request,
        warnings=[*body.warnings(), *request.warnings],
        user=body.user,
        key=key,
        digest=digest if key else None,
    )


def eta_header(ride: Ride) -> dict[str, str]:
    """The seconds that were predicted when the engine took the request."""
    seconds = ride.predicted_s
    return {} if seconds is None else {"X-Chairlift-Eta": f"{seconds:.3f}"}
