"""``POST /v1/images/generations``."""

from __future__ import annotations

import time
from contextlib import ExitStack

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from chairlift.engine.messages import Finished, Timings
from chairlift.errors import (
    DeadlineUnattainable,
    GenerationFailed,
    IdempotencyMismatch,
    InvalidRequest,
    QueueFull,
    RequestCancelled,
    TooManyStreams,
    Unavailable,
    UnknownModel,
)
from chairlift.request import GenerationRequest
from chairlift.server.admission import admit, admit_job, require_pictures, ride_headers
from chairlift.server.idempotency import IdempotencyKey, check_key
from chairlift.server.jobs.view import to_error
from chairlift.server.openapi import errors, events_of, header, json_of
from chairlift.server.schema import (
    CompletedImage,
    ErrorAnswer,
    ImageData,
    ImageGenerationBody,
    ImagesAnswer,
    PartialImage,
)
from chairlift.server.state import state_of
from chairlift.server.streaming import completed_events, stream_images
from chairlift.server.waiting import unless_disconnected, while_connected

router = APIRouter()

EVENTS = {
    "image_generation.partial_image": PartialImage,
    "image_generation.completed": CompletedImage,
    "error": ErrorAnswer,
}
HEADERS = header(
    "X-Chairlift-Id",
    "The request's id, by which it can be cancelled; with an `Idempotency-Key` its job's.",
    required=True,
) | header(
    "X-Chairlift-Eta",
    "Seconds until it is done, as predicted when it was accepted.",
    type="number",
)


@router.post(
    "/v1/images/generations",
    tags=["images"],
    responses={
        200: {"content": json_of(ImagesAnswer) | events_of(EVENTS), "headers": HEADERS},
        **errors(
            InvalidRequest,
            UnknownModel,
            IdempotencyMismatch,
            QueueFull,
            DeadlineUnattainable,
            TooManyStreams,
            RequestCancelled,
            GenerationFailed,
            Unavailable,
        ),
    },
)
async def generate_images(
    body: ImageGenerationBody,
    request: Request,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Generate pictures, and wait for them or see them come. With an ``Idempotency-Key`` they are
    made once, however often the request is repeated, even if the caller goes away. Videos are made
    by ``POST /v1/jobs`` only.
    """
    state = state_of(request)
    require_pictures(state.client.card)
    body.check_streaming()
    with ExitStack() as ending:
        if body.stream:
            ending.enter_context(state.streams.place())
        if key := check_key(idempotency_key):
            return await _generate_once(request, body, key, ending)
        generation = admit(state, body, "req")
        warnings = [*body.warnings(), *generation.warnings]
        ride = state.client.submit(generation)
        if body.stream:
            return await stream_images(request, ride, warnings, ending)
    finished = await unless_disconnected(request, ride)
    return _answer(generation, finished.images, finished.timings, warnings, ride_headers(ride))


async def _generate_once(
    request: Request, body: ImageGenerationBody, key: str, ending: ExitStack
) -> Response:
    """The same by a job, which goes on without its caller."""
    state = state_of(request)
    jobs = state.jobs
    job, _ = await admit_job(state, body, key)
    if body.stream and (ride := jobs.ride(job.id)):
        return await stream_images(request, ride, list(job.warnings), ending, keep=True)
    job = await while_connected(request, jobs.wait(job.id))
    if job.error is not None:
        raise to_error(job.error)
    if job.timings is None or job.request is None:
        raise RequestCancelled("the request was cancelled")
    images = [await jobs.image(job, index) for index in range(job.images)]
    headers = {"X-Chairlift-Id": job.id, "Cache-Control": "no-store"}
    if body.stream:
        finished = Finished(request_id=job.id, images=images, timings=job.timings)
        events = completed_events(job.request, finished, list(job.warnings))
        return Response(b"".join(events), media_type="text/event-stream", headers=headers)
    return _answer(job.request, images, job.timings, list(job.warnings), headers)


def _answer(
    request: GenerationRequest,
    images: list[bytes],
    timings: Timings,
    warnings: list[str],
    headers: dict[str, str],
) -> Response:
    answer = ImagesAnswer(
        created=int(time.time()),
        data=[
            ImageData(b64_json=image, seed=seed)
            for image, seed in zip(images, request.seeds, strict=True)
        ],
        size=request.size,
        output_format=request.output_format,
        timings=timings,
        warnings=warnings,
    )
    return Response(msgspec.json.encode(answer), media_type="application/json", headers=headers)
