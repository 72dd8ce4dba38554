"""Jobs as rows of the database, and back."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import msgspec

from chairlift.engine.messages import Timings
from chairlift.request import GenerationRequest
from chairlift.server.jobs.job import Job, JobError, JobStatus

_COLUMNS = tuple(field.name for field in fields(Job))

INSERT = f"""
INSERT INTO jobs ({", ".join(_COLUMNS)}) VALUES ({", ".join(f":{name}" for name in _COLUMNS)})
ON CONFLICT DO NOTHING
"""
UPDATE = """
UPDATE jobs SET
    status = :status, started_at = :started_at, finished_at = :finished_at, images = :images,
    picture_bytes = :picture_bytes, timings = :timings, error = :error
WHERE id = :id
"""

_DOCUMENTS: Mapping[str, Any] = {
    "request": GenerationRequest,
    "timings": Timings,
    "warnings": tuple[str, ...],
    "error": JobError,
}
"""What is stored as JSON."""


def write_job(job: Job) -> dict[str, Any]:
    """A job's columns."""
    row = {column: getattr(job, column) for column in _COLUMNS}
    return row | {column: _write_document(row[column]) for column in _DOCUMENTS}


def write_error(error: JobError) -> str:
    """The column ``error``."""
    return msgspec.json.encode(error).decode()


def read_job(row: sqlite3.Row) -> Job:
    """The job of a row."""
    values = {column: row[column] for column in _COLUMNS}
    documents = {column: _read_document(column, values[column]) for column in _DOCUMENTS}
    return Job(**values | documents | {"status": JobStatus(values["status"])})


def check_replayable(document: str) -> None:
    """Make sure that a stored request means to this version what it meant to the one that
    accepted it.

    Raises:
        ValueError: It has a field that this version doesn't know, or lacks one, or one has another
            type.
    """
    given = msgspec.json.decode(document, type=dict[str, Any])
    unknown = given.keys() - {field.name for field in fields(GenerationRequest)}
    if unknown:
        raise ValueError(f"its field {min(unknown)!r} is unknown")
    msgspec.convert(given, GenerationRequest)


def _write_document(value: object) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _read_document(column: str, document: str | None) -> object:
    if document is None:
        return None
    try:
        return msgspec.json.decode(document, type=_DOCUMENTS[column])
    except msgspec.DecodeError:
        if column in ("request", "timings"):  # Another version has other fields.
            return None
        raise
