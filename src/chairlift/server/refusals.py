"""Errors as OpenAI's error object, and the bound on bodies."""

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
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chairlift.errors import InvalidApiKey, InvalidRequest, PayloadTooLarge, RequestError
from chairlift.server.logs import log_refused
from chairlift.server.metrics import REFUSALS
from chairlift.server.state import state_of

MAX_BODY_BYTES = 1 * 2**20
MAX_QUOTED = 80
"""Characters of a wrong name or value that are quoted."""


def error_response(request: Request, error: RequestError) -> Response:
    """The answer for an error, which is counted and logged if it is a refusal."""
    if error.code in REFUSALS:
        state_of(request).metrics.observe_refused(error)
        log_refused(error, request.method, request.url.path)
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, InvalidApiKey):
        headers["WWW-Authenticate"] = "Bearer"
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
            reason = error.__cause__ or error.detail
            return error_response(request, InvalidRequest(f"the body can't be read: {reason}"))
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            error.headers = {"Allow": ", ".join(sorted(_methods(request)))}
        message = f"{request.method} {request.url.path}: {error.detail}"
        code = HTTPStatus(error.status_code).name.lower()
        refusal = InvalidRequest(message).to_object() | {"code": code}
        return _response(refusal, error.status_code, error.headers)

    async def unexpected(request: Request, error: Exception) -> Response:
        return error_response(request, RequestError("an internal error has occurred"))

    app.add_exception_handler(RequestError, request_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, unexpected)


def _methods(request: Request) -> set[str]:
    """Those of all routes of a path; the router names those of the first."""
    return {
        method
        for route in iter_route_contexts(request.app.routes)
        if route.path_regex.match(request.url.path)
        for method in route.methods or ()
    }


def _response(error: Mapping[str, str | None], status: int, headers: Any = None) -> Response:
    return JSONResponse({"error": error}, status_code=status, headers=headers)


def explain(error: RequestValidationError) -> InvalidRequest:
    """The first thing that is wrong with a body, in a sentence."""
    first = error.errors()[0]
    kind, where = first["type"], [str(part) for part in first["loc"] if part != "body"]
    if kind == "json_invalid":
        return InvalidRequest(f"the body is not valid JSON: {first['ctx']['error']}")
    if kind == "string_unicode" and not where:
        return InvalidRequest("a field's name has a lone surrogate; it must be valid Unicode")
    param = ".".join(where)[:MAX_QUOTED]  # `loras.0.scale` is in the first of the loras
    if not param:
        return InvalidRequest("the body must be a JSON object, sent as application/json")
    if kind == "missing":
        return InvalidRequest(f"{param} is missing", param=param)
    if kind == "extra_forbidden":
        return InvalidRequest(f"unknown field {param!r}", param=param)
    value = json.dumps(first["input"], default=str)[:MAX_QUOTED]
    expected = first["msg"][0].lower() + first["msg"][1:]
    return InvalidRequest(f"{param} is {value}; {expected}", param=param)


class BodyLimit:
    """ASGI middleware that reads a body of at most :data:`MAX_BODY_BYTES`, and all of it before
    the application sees the first byte.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        try:
            body = await _read_body(scope, receive)
        except PayloadTooLarge as error:
            await error_response(Request(scope), error)(scope, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    body = b""
    more = True
    while more:
        if len(body) > MAX_BODY_BYTES or int(declared) > MAX_BODY_BYTES:
            raise PayloadTooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes")
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body
