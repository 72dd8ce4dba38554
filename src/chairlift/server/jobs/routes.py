"""``/v1/jobs``: requests that outlive their connection, and the server."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from chairlift.errors import (
    DeadlineUnattainable,
    IdempotencyMismatch,
    InvalidRequest,
    JobFinished,
    JobNotFinished,
    QueueFull,
    RangeNotSatisfiable,
    StorageFailed,
    TooManyStreams,
    Unavailable,
    UnknownJob,
    UnknownModel,
    UnknownPicture,
)
from chairlift.request import MEDIA_TYPES
from chairlift.server.access import owner
from chairlift.server.admission import admit_job
from chairlift.server.events import EventStream
from chairlift.server.file_answer import FileAnswer, has_copy
from chairlift.server.idempotency import IdempotencyKey, check_key
from chairlift.server.jobs.job import JobStatus
from chairlift.server.jobs.view import (
    JobAnswer,
    JobEvent,
    JobList,
    JobPartialImage,
    RemovedJob,
)
from chairlift.server.openapi import errors, events_of, header, json_of
from chairlift.server.schema import ImageGenerationBody
from chairlift.server.state import state_of
from chairlift.server.waiting import while_connected

MAX_PAGE = 100
MAX_WAIT_SECONDS = 60.0
"""How long a question after a job may wait for its end."""

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
        ("remove_job", "job_id", {}),
    )
}
"""Where the id of a new job leads to."""
LOCATION = header("Location", "Where the job is.", required=True)
FILES: dict[str, Any] = {media_type: {} for media_type in MEDIA_TYPES.values()}
FILE_HEADERS = header("ETag", "Of the file, which never changes.", required=True)
PART_HEADERS = FILE_HEADERS | header("Content-Range", "Which bytes, of how many.", required=True)

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post(
    "",
    status_code=202,
    responses={
        200: {
            "description": "The first one's job, for a repeated `Idempotency-Key`.",
            "content": json_of(JobAnswer),
            "headers": LOCATION,
        },
        202: {
            "content": json_of(JobAnswer),
            "headers": LOCATION,
            "links": LINKS,
        },
        **errors(
            InvalidRequest,
            UnknownModel,
            IdempotencyMismatch,
            QueueFull,
            DeadlineUnattainable,
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
    headers = {"Location": f"/v1/jobs/{job.id}"}
    return _json(state.jobs.show(job), 202 if is_new else 200, headers)


class JobsQuery(BaseModel):
    """Which jobs are listed."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(20, ge=1, le=MAX_PAGE)
    after: str | None = Field(None, description="Only jobs before this one.")
    status: list[JobStatus] | None = None
    user: str | None = None


@router.get(
    "",
    responses={200: {"content": json_of(JobList)}, **errors(InvalidRequest, StorageFailed)},
)
async def list_jobs(request: Request, query: Annotated[JobsQuery, Query()]) -> Response:
    """Jobs, the newest first."""
    state = state_of(request)
    found = await state.jobs.page(
        limit=query.limit,
        after=query.after,
        statuses=query.status,
        user=query.user,
        owner=owner.get(),
    )
    data = [state.jobs.show(job) for job in found.jobs]
    return _json({"object": "list", "data": data, "has_more": found.has_more})


@router.get(
    "/{job_id}",
    responses={
        200: {"content": json_of(JobAnswer)},
        **errors(InvalidRequest, UnknownJob, StorageFailed),
    },
)
async def get_job(
    job_id: str,
    request: Request,
    wait_s: Annotated[
        float, Query(ge=0, le=MAX_WAIT_SECONDS, description="Wait so long for its end.")
    ] = 0.0,
) -> Response:
    """A job as it is now, or, with ``wait_s``, as soon as it has ended or the time is over."""
    jobs = state_of(request).jobs
    job = await jobs.get(job_id, owner.get())
    if wait_s and not job.status.is_terminal:
        job = await while_connected(request, jobs.give_time(job.id, wait_s))
    return _json(jobs.show(job))


@router.delete(
    "/{job_id}",
    responses={
        200: {"content": json_of(RemovedJob)},
        **errors(UnknownJob, JobNotFinished, StorageFailed),
    },
)
async def remove_job(job_id: str, request: Request) -> Response:
    """Forget a job that has ended: its pictures, its settings, and its ``Idempotency-Key``."""
    await state_of(request).jobs.remove(job_id, owner.get())
    return _json(RemovedJob(id=job_id))


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
    jobs = state_of(request).jobs
    return _json(jobs.show(await jobs.cancel(job_id, owner.get())))


@router.get(
    "/{job_id}/images/{index}",
    response_class=Response,
    responses={
        200: {"content": FILES, "headers": FILE_HEADERS},
        304: {
            "description": "The caller has it, as `If-None-Match` says.",
            "headers": FILE_HEADERS,
        },
        206: {
            "description": "The bytes that `Range` names.",
            "content": FILES,
            "headers": PART_HEADERS,
        },
        **errors(
            InvalidRequest,
            UnknownJob,
            UnknownPicture,
            JobNotFinished,
            RangeNotSatisfiable,
            StorageFailed,
        ),
    },
)
async def get_job_image(
    job_id: str,
    index: Annotated[int, Path(description="From 0.", json_schema_extra={"minimum": 0})],
    request: Request,
    asked: Annotated[
        str | None, Header(alias="Range", description="The bytes that are wanted, of one range.")
    ] = None,
    condition: Annotated[
        str | None,
        Header(alias="If-Range", description="The `ETag` of what the range is a part of."),
    ] = None,
    held: Annotated[
        str | None,
        Header(alias="If-None-Match", description="The `ETag` of what the caller has."),
    ] = None,
) -> Response:
    """A finished picture or video, or the bytes of it that ``Range`` names."""
    jobs = state_of(request).jobs
    job = await jobs.get(job_id, owner.get())
    if not job.images:
        raise JobNotFinished(f"the job {job.id} is {job.status}; it has no pictures")
    if not 0 <= index < job.images:
        raise UnknownPicture(
            f"image is {index}; the job has {job.images}, numbered from 0", param="image"
        )
    format = job.output_format
    headers = {
        # A job's pictures never change.
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": f'inline; filename="{job.id}-{index}.{format}"',
        "ETag": f'"{job.id}-{index}"',
    }
    if has_copy(held or "", headers["ETag"]):
        return Response(status_code=304, headers=headers)
    file = await jobs.open_image(job, index)
    return FileAnswer(file, MEDIA_TYPES[format], headers, asked, condition)


def _json(data: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(data), status, headers=headers, media_type="application/json"
    )
