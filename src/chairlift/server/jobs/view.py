"""What callers are shown of a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from chairlift.card import ModelCard
from chairlift.engine.messages import Timings
from chairlift.engine.ride import Ride
from chairlift.errors import REQUEST_ERRORS, GenerationFailed, RequestError
from chairlift.request import GenerationRequest
from chairlift.server.jobs.job import Job, JobError, JobStatus
from chairlift.server.schema import PartialImage


class JobProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job's pictures are."""

    steps: list[int]
    """Sampler steps that each picture has behind it."""
    of: int


class JobImage(msgspec.Struct, frozen=True, kw_only=True):
    """A finished picture."""

    index: int
    seed: int
    output_format: str
    url: str


class JobAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A job as JSON."""

    id: str
    object: str = "job"
    status: JobStatus
    created_at: float
    """Unix time in seconds, like the two below."""
    started_at: float | None
    finished_at: float | None
    request: dict[str, Any] | None
    """Its settings, as fields of the HTTP API."""
    progress: JobProgress | None
    position: int | None
    """How many requests wait before it; only while it waits itself."""
    eta_s: float | None
    """Predicted seconds from now until it is done; only until then."""
    images: list[JobImage]
    timings: Timings | None
    warnings: list[str]
    error: dict[str, str | None] | None


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of jobs, the newest first."""

    object: str = "list"
    data: list[JobAnswer]
    has_more: bool


class RemovedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is no longer known."""

    id: str
    object: str = "job"
    deleted: bool = True


class JobEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a job: how it is at that moment."""

    type: str
    job: JobAnswer


class JobPartialImage(PartialImage, frozen=True, kw_only=True, tag="job.partial_image"):
    """A half-made picture, as an event of a job."""


def show_job(
    job: Job, card: ModelCard, rides: Mapping[str, Ride], now: float, backlog: float
) -> JobAnswer:
    """A job, with what the engine has said of it.

    Args:
        job: As it is stored.
        card: Of the model.
        rides: Of all unfinished requests.
        now: Seconds, on the event loop's clock.
        backlog: Predicted seconds of all work; the prediction until the engine has said its own.
    """
    ride, request = rides.get(job.id), job.request
    eta_s = None
    if not job.status.is_terminal:
        eta_s = ride.eta_s(now) if ride else None
        eta_s = round(backlog if eta_s is None else eta_s, 3)
    return JobAnswer(
        id=job.id,
        status=job.status,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        request=None if request is None else _settings(request, card, job.user),
        progress=None if request is None else _progress(job, request, ride),
        position=_position(job, rides) if job.status is JobStatus.QUEUED else None,
        eta_s=eta_s,
        images=[] if request is None else _images(job, request),
        timings=job.timings,
        warnings=list(job.warnings),
        error=None if job.error is None else to_error(job.error).to_object(),
    )


def to_error(error: JobError) -> RequestError:
    """What a failed job's caller would have got."""
    kind = REQUEST_ERRORS.get(error.code, GenerationFailed)
    return kind(error.message, param=error.param)


def _settings(request: GenerationRequest, card: ModelCard, user: str | None) -> dict[str, Any]:
    rule = card.guidance
    true_cfg = rule.cfg_field == "true_cfg_scale"
    return {
        "model": request.model,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "size": request.size,
        "n": request.n,
        "num_frames": request.frames,
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance_scale,
        "true_cfg_scale": rule.cfg_value(request.cfg_scale) if true_cfg else 1.0,
        "guidance_scale_2": request.guidance_scale_2,
        "guidance_rescale": request.guidance_rescale,
        "cfg_truncation": request.cfg_truncation,
        "cfg_normalization": request.cfg_normalization,
        "sampler": request.sampler,
        "seed": request.seed,
        "loras": [{"name": lora.name, "scale": lora.scale} for lora in request.loras],
        "output_format": request.output_format,
        "output_compression": request.output_compression,
        "priority": request.priority,
        "deadline_ms": None if request.deadline is None else round(1000 * request.deadline, 3),
        "user": user,
    }


def _progress(job: Job, request: GenerationRequest, ride: Ride | None) -> JobProgress:
    done = request.steps if job.status is JobStatus.SUCCEEDED else 0
    steps = list(ride.steps) if ride else [done] * request.n
    return JobProgress(steps=steps, of=request.steps)


def _position(job: Job, rides: Mapping[str, Ride]) -> int:
    before = 0
    for id, ride in rides.items():
        if id == job.id:
            break
        before += not ride.boarded.is_set()
    return before


def _images(job: Job, request: GenerationRequest) -> list[JobImage]:
    return [
        JobImage(
            index=index,
            seed=request.seeds[index],
            output_format=job.output_format,
            url=f"/v1/jobs/{job.id}/images/{index}",
        )
        for index in range(job.images)
    ]
