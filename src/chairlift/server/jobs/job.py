"""A job: a request that was acknowledged, and what has become of it.

Nothing here knows how jobs are stored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from chairlift.engine.messages import Timings
from chairlift.errors import IllegalTransition
from chairlift.request import GenerationRequest, OutputFormat

_ID = re.compile(r"job_[0-9a-f]{32}")


class JobStatus(StrEnum):
    """Where a job is. Terminal statuses come last."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return not TRANSITIONS[self]


_ENDS = frozenset({JobStatus.FAILED, JobStatus.CANCELLED})

TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: _ENDS | {JobStatus.RUNNING},
    # Back to the queue when the server that ran it has died.
    JobStatus.RUNNING: _ENDS | {JobStatus.SUCCEEDED, JobStatus.QUEUED},
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}


def transition(old: JobStatus, new: JobStatus) -> JobStatus:
    """``new``, if a job may go there from ``old``.

    Raises:
        IllegalTransition: It may not.
    """
    if new not in TRANSITIONS[old]:
        raise IllegalTransition(f"a job can't go from {old} to {new}")
    return new


class JobError(NamedTuple):
    """Why a job has failed: the parts of a :class:`chairlift.errors.RequestError`."""

    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One job, as it was when it was read.

    Raises:
        ValueError: The id isn't ``job_`` and 32 hexadecimal digits.
    """

    id: str
    status: JobStatus = JobStatus.QUEUED
    created_at: float
    """Unix time in seconds, like the two below."""
    started_at: float | None = None
    """None while it is queued, and if it ended there."""
    finished_at: float | None = None
    """When it reached a terminal status."""
    request: GenerationRequest | None
    """None only for a job that has ended, stored by another version in a way that this one can't
    read."""
    output_format: OutputFormat
    """Of its picture files; the request's."""
    images: int = 0
    """Picture files that it has: the request's ``n`` once it has succeeded, else 0."""
    picture_bytes: int = 0
    """Their size in all."""
    timings: Timings | None = None
    """None until it has succeeded, or where another version has stored others."""
    warnings: tuple[str, ...] = ()
    """A sentence each."""
    error: JobError | None = None
    """None unless it has failed."""
    user: str | None = None
    """What the caller gave as ``user``."""
    owner: str = ""
    """Who alone may see and end it; the request's."""
    idempotency_key: str | None = None
    """What the caller gave as ``Idempotency-Key``."""
    body_digest: bytes | None = None
    """Tells whether a repeated key came with the same body."""

    def __post_init__(self) -> None:
        check_job_id(self.id)


def is_job_id(text: str) -> bool:
    """Whether this can be the id of a job, and so a part of a path."""
    return _ID.fullmatch(text) is not None


def check_job_id(text: str) -> None:
    """Make sure that this can be a part of a path.

    Raises:
        ValueError: It isn't ``job_`` and 32 hexadecimal digits.
    """
    if not is_job_id(text):
        raise ValueError(f"not a job's id: {text[:80]!r}")


def new_job(
    request: GenerationRequest,
    *,
    created_at: float,
    warnings: tuple[str, ...] = (),
    user: str | None = None,
    idempotency_key: str | None = None,
    body_digest: bytes | None = None,
) -> Job:
    """A queued job for this request, with the request's id.

    Args:
        request: Every value is checked already.
        created_at: Unix time in seconds.
        warnings: What the caller is told beside the pictures.
        user: What the caller gave as ``user``.
        idempotency_key: What the caller gave as ``Idempotency-Key``.
        body_digest: Of the body that came with the key.
    """
    return Job(
        id=request.id,
        created_at=created_at,
        request=request,
        output_format=request.output_format,
        warnings=warnings,
        user=user,
        owner=request.owner,
        idempotency_key=idempotency_key,
        body_digest=body_digest,
    )
