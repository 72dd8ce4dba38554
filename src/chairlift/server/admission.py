"""Admission: which requests are taken."""

from __future__ import annotations

import math
import uuid
from dataclasses import replace
from typing import Literal

from chairlift.card import ModelCard
from chairlift.engine.ride import Ride
from chairlift.errors import InvalidRequest, KeyQueueFull, QueueFull, UnknownModel
from chairlift.request import GenerationRequest
from chairlift.server.access import caller, owner
from chairlift.server.idempotency import body_digest
from chairlift.server.jobs.job import Job
from chairlift.server.limits import Limits
from chairlift.server.schema import ImageGenerationBody
from chairlift.server.state import ServerState
from chairlift.validation import MAX_QUOTED

MAX_RETRY_SECONDS = 120


def admit(
    state: ServerState, body: ImageGenerationBody, kind: Literal["req", "job"]
) -> GenerationRequest:
    """The request that a body asks for, if it is valid and there is room for it.

    Raises:
        InvalidRequest: A value is out of bounds.
        UnknownModel: It names a model that isn't served.
        KeyQueueFull: As many rows as are kept for its API key are already accepted.
        QueueFull: As many rows as are kept are already accepted.
    """
    card = state.client.card
    if body.model is not None:
        check_model(body.model, card)
    request = body.to_request(card, id=f"{kind}_{uuid.uuid4().hex}", caller=caller.get())
    request = replace(request, owner=owner.get())
    _check_work(request, state.limits)
    _check_room(request, state)
    return request


def check_model(asked: str, card: ModelCard) -> None:
    """Refuse any other model than the one that is served.

    Raises:
        UnknownModel: It is another one.
    """
    if asked != card.id:
        raise UnknownModel(
            f"model is {asked[:MAX_QUOTED]!r}; the model that is served is {card.id!r}",
            param="model",
        )


def require_pictures(card: ModelCard) -> None:
    """Whoever waits for an answer waits for pictures: a video takes minutes, and its caller's
    connection may not last so long.

    Raises:
        InvalidRequest: The model makes videos.
    """
    if card.is_video:
        raise InvalidRequest(
            f"model is {card.id!r}, which makes videos; they are made by POST /v1/jobs",
            param="model",
        )


def _check_work(request: GenerationRequest, limits: Limits) -> None:
    """Refuse what can never be accepted."""
    pixels = request.width * request.height * request.frames
    work = pixels * request.steps * request.n / 1e6
    if work > limits.max_megapixel_steps:
        raise InvalidRequest(
            f"size {request.size}, num_frames {request.frames}, num_inference_steps "
            f"{request.steps} and n {request.n} are {work:.9g} megapixel steps; at most "
            f"{limits.max_megapixel_steps:.9g} are allowed"
        )
    if request.n > limits.max_rows:
        raise InvalidRequest(
            f"n is {request.n}; this server keeps at most {limits.max_rows} pictures at once",
            param="n",
        )


def _check_room(request: GenerationRequest, state: ServerState) -> None:
    limits, pending = state.limits, state.client.pending_rows
    wait = math.ceil(state.client.activity.backlog_seconds)
    retry_after = max(1, min(MAX_RETRY_SECONDS, wait))
    if limits.max_queue_per_key is not None:
        rides = state.client.rides.values()
        own = sum(ride.request.n for ride in rides if ride.request.owner == request.owner)
        if own + request.n > limits.max_queue_per_key:
            raise KeyQueueFull(
                f"n is {request.n}; {own} pictures of this API key are accepted and not done, "
                f"of at most {limits.max_queue_per_key}",
                retry_after=retry_after,
            )
    if pending + request.n > limits.max_queue:
        raise QueueFull(
            f"n is {request.n}; {pending} pictures are accepted and not done, of at most "
            f"{limits.max_queue}",
            retry_after=retry_after,
        )


async def admit_job(
    state: ServerState, body: ImageGenerationBody, key: str | None
) -> tuple[Job, bool]:
    """The job that a body asks for, and whether it is new, or the one that came with the same
    idempotency key before.

    Raises:
        RequestError: It isn't accepted.
    """
    digest = body_digest(body)
    if key and (known := await state.jobs.find(key, digest, owner.get())):
        return known, False
    request = admit(state, body, "job")
    return await state.jobs.submit(
        request,
        warnings=[*body.warnings(), *request.warnings],
        user=body.user,
        key=key,
        digest=digest if key else None,
    )


def ride_headers(ride: Ride) -> dict[str, str]:
    """Its id, and the seconds that were predicted when the engine took the request."""
    headers = {"X-Chairlift-Id": ride.request.id}
    if ride.predicted_s is not None:
        headers["X-Chairlift-Eta"] = f"{ride.predicted_s:.3f}"
    return headers
