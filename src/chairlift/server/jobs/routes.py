"""``/v1/jobs``: requests that outlive their connection, and the server."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from chairlift.errors import (
    IdempotencyMismatch,
    InvalidRequest,
    JobFinished,
    JobNotFinished,
    QueueFull,
    StorageFailed,
    TooManyStreams,
    Unavailable,
    UnknownJob,
    UnknownModel,
    UnknownPicture,
)
from chairlift.request import IMAGE_FORMATS
from chairlift.server.access import owner
from chairlift.server.admission import admit_job
from chairlift.server.events import EventStream
from chairlift.server.idempotency import IdempotencyKey, check_key
from chairlift.server.jobs.job import Job, JobStatus
from chairlift.server.jobs.view import JobAnswer, JobEvent, JobList, JobPartialImage
from chairlift.server.openapi import errors, events_of, header, json_of
from chairlift.server.schema import ImageGenerationBody
from chairlift.server.state import ServerState, state_of

MAX_PAGE = 100

EVENTS = {
    "job.updated": JobEvent,
    "job.partial_image": JobPartialImage,
    "job.succeeded": JobEvent,
    "job.failed": JobEvent,
    "job.cancelled": JobEvent,
}

LINKS = {
    name: {"operationId": name, "parameters": {id: "$response.body#/id"} | others}
    for name, id, others in (
        ("get_job", "job_id", {}),
        ("watch_job", "job_id", {}),
        ("cancel_job", "job_id", {}),
        ("cancel_request", "request_id", {}),
        ("get_job_image", "job_id", {"index": "0"}),
    )
}
"""Where the id of a new job leads to."""

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post(
    "",
    status_code=202,
    responses={
        200: {
            "description": "The first one's job, for a repeated `Idempotency-Key`.",
            "content": json_of(JobAnswer),
        },
        202: {
            "content": json_of(JobAnswer),
            "headers": header("Location", "Where the job is.", required=True),
            "links": LINKS,
        },
        **errors(
            InvalidRequest,
            UnknownModel,
            IdempotencyMismatch,
            QueueFull,
            StorageFailed,
            Unavailable,
        ),
    },
)
async def submit_job(
    body: ImageGenerationBody,
    request: Request,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Accept a job, which is kept until it is done, whatever happens to the caller or the server.
    A repeated ``Idempotency-Key`` gets the first one's job.
    """
    state = state_of(request)
    if body.stream:
        raise InvalidRequest("stream is true; a job's events are at its own URL", param="stream")
    job, is_new = await admit_job(state, body, check_key(idempotency_key))
    await state.jobs.await_prediction(job.id)
    return _answer(state, job, status=202 if is_new else 200)


@router.get(
    "",
    responses={200: {"content": json_of(JobList)}, **errors(InvalidRequest, StorageFailed)},
)
async def list_jobs(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    after: Annotated[str | None, Query(description="Only jobs before this one.")] = None,
    status: Annotated[list[JobStatus] | None, Query()] = None,
    user: str | None = None,
) -> Response:
    """Jobs, the newest first."""
    state = state_of(request)
    found = await state.jobs.page(
        limit=limit, after=after, statuses=status, user=user, owner=owner.get()
    )
    data = [state.jobs.show(job) for job in found.jobs]
    return _json({"object": "list", "data": data, "has_more": found.has_more})


@router.get(
    "/{job_id}",
    responses={200: {"content": json_of(JobAnswer)}, **errors(UnknownJob, StorageFailed)},
)
async def get_job(job_id: str, request: Request) -> Response:
    """A job as it is now."""
    state = state_of(request)
    return _answer(state, await state.jobs.get(job_id, owner.get()))


@router.get(
    "/{job_id}/events",
    response_class=Response,
    responses={
        200: {"content": events_of(EVENTS)},
        **errors(UnknownJob, TooManyStreams, StorageFailed),
    },
)
async def watch_job(job_id: str, request: Request) -> Response:
    """Server-sent events: how the job goes on, half-made pictures, and how it ends."""
    state = state_of(request)
    job = await state.jobs.get(job_id, owner.get())
    with ExitStack() as ending:
        ending.enter_context(state.streams.place())
        return EventStream(state.jobs.events(job), ending.pop_all().close)


@router.post(
    "/{job_id}/cancel",
    responses={
        200: {"content": json_of(JobAnswer)},
        **errors(UnknownJob, JobFinished, StorageFailed, Unavailable),
    },
)
async def cancel_job(job_id: str, request: Request) -> Response:
    """End a job; its rows are off the lift by the next tick."""
    state = state_of(request)
    return _answer(state, await state.jobs.cancel(job_id, owner.get()))


@router.get(
    "/{job_id}/images/{index}",
    response_class=Response,
    responses={
        200: {"content": {f"image/{name}": {} for name in IMAGE_FORMATS}},
        **errors(InvalidRequest, UnknownJob, UnknownPicture, JobNotFinished, StorageFailed),
    },
)
async def get_job_image(
    job_id: str,
    index: Annotated[int, Path(description="From 0.", json_schema_extra={"minimum": 0})],
    request: Request,
) -> Response:
    """A finished picture."""
    jobs = state_of(request).jobs
    job = await jobs.get(job_id, owner.get())
    if not job.images:
        raise JobNotFinished(f"the job {job.id} is {job.status}; it has no pictures")
    if not 0 <= index < job.images:
        raise UnknownPicture(
            f"image is {index}; the job has {job.images}, numbered from 0", param="image"
        )
    # A job's pictures never change.
    headers = {"Cache-Control": "private, max-age=31536000, immutable"}
    data = await jobs.image(job, index)
    return Response(data, media_type=f"image/{job.output_format}", headers=headers)


def _answer(state: ServerState, job: Job, status: int = 200) -> Response:
    headers = {"Location": f"/v1/jobs/{job.id}"} if status == 202 else None
    return _json(state.jobs.show(job), status, headers)


def _json(data: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(data), status, headers=headers, media_type="application/json"
    )
