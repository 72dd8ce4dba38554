"""Errors as OpenAI's error object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from chairlift.errors import (
    InvalidApiKey,
    InvalidRequest,
    RangeNotSatisfiable,
    RequestError,
    RequestTimeout,
)
from chairlift.server.logs import log_refused
from chairlift.server.metrics import REFUSALS
from chairlift.server.state import state_of
from chairlift.validation import MAX_QUOTED


def error_response(request: Request, error: RequestError) -> Response:
    """The answer for an error, which is counted and logged if it is a refusal."""
    # Who only reads that the server isn't ready was not refused anything.
    asked = error.status < 500 or request.method == "POST"
    if error.code in REFUSALS and asked and not error.after_acceptance:
        state_of(request).metrics.observe_refused(error)
        log_refused(error, request.method, request.url.path)
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, InvalidApiKey):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.size}"
    if isinstance(error, RequestTimeout):
        headers["Connection"] = "close"  # The rest of the body may come, and is no request.
    return _response(error.to_object(), error.status, headers)


def install(app: FastAPI) -> None:
    """Make every error of ``app`` an OpenAI error object."""

    async def request_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestError)
        return error_response(request, error)

    async def validation_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(request, explain(error))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == HTTPStatus.BAD_REQUEST:
            # Of what is wrong with a body's text; any other cause is our own affair.
            known = isinstance(error.__cause__, ValueError | RecursionError)
            reason = error.__cause__ if known else error.detail
            return error_response(request, InvalidRequest(f"the body can't be read: {reason}"))
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            error.headers = {"Allow": ", ".join(sorted(_methods(request)))}
        message = f"{request.method} {request.url.path}: {error.detail}"
        code = HTTPStatus(error.status_code).name.lower()
        refusal = InvalidRequest(message).to_object() | {"code": code}
        return _response(refusal, error.status_code, error.headers)

    async def unexpected(request: Request, error: Exception) -> Response:
        answer = error_response(request, RequestError("an internal error has occurred"))
        answer.headers["Connection"] = "close"  # As uvicorn does then, without saying so.
        return answer

    app.add_exception_handler(RequestError, request_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, unexpected)


def _methods(request: Request) -> set[str]:
    """Those of all routes of a path; the router names those of the first."""
    methods = {
        method
        for route in iter_route_contexts(request.app.routes)
        if route.path_regex.match(request.url.path)
        for method in route.methods or ()
    }
    return methods | {"HEAD"} if "GET" in methods else methods


def _response(error: Mapping[str, str | None], status: int, headers: Any = None) -> Response:
    return JSONResponse({"error": error}, status_code=status, headers=headers)


def explain(error: RequestValidationError) -> InvalidRequest:
    """The first thing that is wrong with a body, in a sentence."""
    first = error.errors()[0]
    kind, where = first["type"], [str(part) for part in first["loc"][1:]]  # without "body", "query"
    if kind == "json_invalid":
        return InvalidRequest(f"the body is not valid JSON: {first['ctx']['error']}")
    if kind == "string_unicode" and not where:
        return InvalidRequest("a field's name has a lone surrogate; it must be valid Unicode")
    param = ".".join(where)[:MAX_QUOTED]  # `loras.0.scale` is in the first of the loras
    if not where:
        return InvalidRequest("the body must be a JSON object, sent as application/json")
    if kind == "missing":
        return InvalidRequest(f"{param} is missing", param=param)
    if kind == "extra_forbidden":
        return InvalidRequest(f"unknown field {param!r}", param=param)
    value = json.dumps(first["input"], default=str)[:MAX_QUOTED]
    expected = first["msg"][0].lower() + first["msg"][1:]
    return InvalidRequest(f"{param} is {value}; {expected}", param=param)
