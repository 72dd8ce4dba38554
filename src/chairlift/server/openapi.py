"""The OpenAPI description: what FastAPI can't read off the routes.

Each route names its answers and the errors that it raises with the functions here. What is answered
around the routes (a wrong key, a body that is too large, the header of the request's id) is added
to all of them by :func:`install`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from fastapi import FastAPI

from chairlift.card import ModelCard
from chairlift.errors import (
    REQUEST_ERRORS,
    CrossSiteRequest,
    HeadTooLarge,
    InvalidApiKey,
    MisdirectedRequest,
    PayloadTooLarge,
    RequestError,
    RequestTimeout,
    UnsupportedMediaType,
)
from chairlift.server.access import Access, is_open
from chairlift.server.jobs.view import (
    JobAnswer,
    JobEvent,
    JobList,
    JobPartialImage,
    RemovedJob,
)
from chairlift.server.request_id import HEADER
from chairlift.server.schema import (
    CompletedImage,
    ErrorAnswer,
    ImagesAnswer,
    LiftReport,
    PartialImage,
)

VERSION = "3.2.0"
"""Of OpenAPI; the first in which the events of a stream can be described."""

Content = dict[str, Any]
Responses = dict[int | str, dict[str, Any]]

DESCRIPTION = """\
Pictures, or videos, from a diffusion model. `POST /v1/images/generations` takes what OpenAI's
clients send, and further settings flat beside it; `GET /v1/models` says which of them the served
model has, and within which bounds. `POST /v1/jobs` takes the same; a model that makes videos makes
them there only.

Bodies are JSON, sent as `application/json`; a field that nobody knows is refused by its name. Every
error is `{"error": {"message", "type", "param", "code"}}`, and names the field, the value and the
bound. What answers GET answers HEAD too.
"""
TAGS = [
    {"name": "images", "description": "Pictures in the answer, or in a stream of events."},
    {"name": "jobs", "description": "Requests that outlive their connection, and the server."},
    {"name": "operations", "description": "The model, the running batch, health and metrics."},
]
_PROMPT = {"prompt": "a yellow boat in the middle at sunset, a sun"}
EXAMPLES: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "generate_images": {
        "The least": _PROMPT,
        "Two pictures that can be had again": _PROMPT
        | {"negative_prompt": "mountains", "n": 2, "seed": 7, "output_format": "webp"},
        "Half-made pictures on the way": _PROMPT | {"stream": True, "partial_images": 2},
    },
    "submit_job": {
        "The least": _PROMPT,
        "Something that can wait": _PROMPT | {"n": 4, "priority": -1, "user": "newsletter"},
    },
    "set_policy": {"Fair between callers": {"policy": "fair"}},
}
"""Bodies by their operation's id, which any model takes."""

_SCHEMAS = "#/components/schemas/{name}"
_TYPES = (
    ImagesAnswer,
    PartialImage,
    CompletedImage,
    JobAnswer,
    JobList,
    JobEvent,
    JobPartialImage,
    RemovedJob,
    LiftReport,
    ModelCard,
    ErrorAnswer,
)
"""What is answered and not described by FastAPI."""

_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds after which a new attempt makes sense, where that is known.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_HEADERS: Mapping[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}}},
    416: {
        "Content-Range": {
            "description": "How many bytes there are.",
            "required": True,
            "schema": {"type": "string", "pattern": r"^bytes \*/[0-9]+$"},
        }
    },
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}
"""Of errors, by status."""


# ---------------------------------------------------------------------- for the routes


def reference(kind: type) -> dict[str, str]:
    """The schema of one of :data:`_TYPES`."""
    assert kind in _TYPES
    return {"$ref": _SCHEMAS.format(name=kind.__name__)}


def json_of(kind: type) -> Content:
    """The content of an answer that is JSON of this type."""
    return {"application/json": {"schema": reference(kind)}}


def events_of(kinds: Mapping[str, type]) -> Content:
    """The content of a stream of server-sent events, whose data is JSON.

    Args:
        kinds: The type of the data, by the event's name; that of events without one is
            ``message``.
    """
    events = [
        {
            "type": "object",
            "required": ["data"] if name == "message" else ["event", "data"],
            "properties": {
                "event": {"const": name},
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": reference(kind),
                },
            },
        }
        for name, kind in kinds.items()
    ]
    return {"text/event-stream": {"itemSchema": {"anyOf": events}}}


def header(
    name: str, description: str, *, type: str = "string", required: bool = False
) -> dict[str, Any]:
    """A header of an answer."""
    return {name: {"description": description, "required": required, "schema": {"type": type}}}


def errors(*kinds: type[RequestError]) -> Responses:
    """The answers for these errors, and for those that are kinds of them."""
    found: dict[int | str, list[str]] = {}
    for code, kind in REQUEST_ERRORS.items():
        if issubclass(kind, kinds):
            meaning = inspect.getdoc(kind) or ""
            found.setdefault(kind.status, []).append(f"`{code}`: {meaning.splitlines()[0]}")
    return {
        status: {
            "description": "\n\n".join(meanings),
            "content": json_of(ErrorAnswer),
            "headers": dict(_HEADERS.get(int(status), {})),
        }
        for status, meanings in found.items()
    }


# ---------------------------------------------------------------------- the whole


def install(app: FastAPI, access: Access) -> None:
    """Make ``app`` describe itself truly.

    Args:
        app: With all its routes.
        access: Who is let in.
    """
    app.openapi_version = VERSION
    app.description, app.openapi_tags = DESCRIPTION, TAGS
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(describe(), access)  # FastAPI keeps it in openapi_schema.
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's guide has it


def _complete(document: dict[str, Any], access: Access) -> None:
    for path, method, operation in _operations(document):
        responses: dict[str, Any] = operation["responses"]
        # FastAPI's own errors, which are answered with 400 here.
        if "HTTPValidationError" in str(responses.get("422")):
            del responses["422"]
        around = list(_errors_around(path, method, access))
        if InvalidApiKey in around:
            operation["security"] = [{"key": []}]
        responses |= {str(status): answer for status, answer in errors(*around).items()}
        operation["responses"] = dict(sorted(responses.items()))
        for response in responses.values():
            headers = response.setdefault("headers", {})
            headers[HEADER] = {"$ref": f"#/components/headers/{HEADER}"}
        parameters = operation.setdefault("parameters", [])
        for parameter in parameters:
            parameter["schema"] = _without_null(parameter["schema"])
        parameters.append({"$ref": f"#/components/parameters/{HEADER}"})
        if examples := EXAMPLES.get(operation["operationId"]):
            operation["requestBody"]["content"]["application/json"]["examples"] = {
                name: {"value": body} for name, body in examples.items()
            }
    _add_components(document["components"], access)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def _errors_around(path: str, method: str, access: Access) -> Iterator[type[RequestError]]:
    """The errors that come before any route is asked."""
    yield HeadTooLarge
    if method != "get":
        yield from (CrossSiteRequest, RequestTimeout, PayloadTooLarge, UnsupportedMediaType)
    if access.only_host is not None:
        yield MisdirectedRequest
    if access.keys and not is_open(path, open_metrics=access.open_metrics):
        yield InvalidApiKey


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter may be left out, but is never null."""
    kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
    return schema | (kinds[0] if kinds else {})


def _add_components(components: dict[str, Any], access: Access) -> None:
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template=_SCHEMAS)
    for foreign in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(foreign, None)
    components["schemas"] = dict(sorted((components["schemas"] | schemas).items()))
    components["headers"] = header(HEADER, "The request's, or a new one.", required=True)
    components["parameters"] = {
        HEADER: {
            "name": HEADER,
            "in": "header",
            "description": "The caller's name for this request, which the answer and the log have "
            "too: up to 128 letters, digits, `.`, `_`, `:`, `-`. Any other is replaced.",
            "schema": {"type": "string"},
        }
    }
    if access.keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
