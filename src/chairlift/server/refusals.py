"""Errors as OpenAI's error object, and the bound on bodies."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chairlift.errors import InvalidRequest, PayloadTooLarge, RequestError

MAX_BODY_BYTES = 1 * 2**20


def error_response(error: RequestError) -> Response:
    """The answer for an error."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return _response(error.status, error.message, error.type, error.param, error.code, headers)


def install(app: FastAPI) -> None:
    """Make every error of ``app`` an OpenAI error object."""

    async def request_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestError)
        return error_response(error)

    async def validation_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(_explain(error))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path}: {error.detail}"
        return _response(
            error.status_code, message, "invalid_request_error", None, None, error.headers
        )

    async def unexpected(request: Request, error: Exception) -> Response:
        return error_response(RequestError("an internal error has occurred"))

    app.add_exception_handler(RequestError, request_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, unexpected)


def _response(
    status: int,
    message: str,
    type: str,
    param: str | None,
    code: str | None,
    headers: Any = None,
) -> Response:
    error = {"message": message, "type": type, "param": param, "code": code}
    return JSONResponse({"error": error}, status_code=status, headers=headers)


def _explain(error: RequestValidationError) -> InvalidRequest:
    """The first thing that is wrong with a body, in a sentence."""
    first = error.errors()[0]
    kind, where = first["type"], [str(part) for part in first["loc"] if part != "body"]
    if kind == "json_invalid":
        return InvalidRequest(f"the body is not valid JSON: {first['ctx']['error']}")
    param = where[0] if where else None
    if param is None:
        return InvalidRequest("the body must be a JSON object, sent as application/json")
    if kind == "missing":
        return InvalidRequest(f"{param} is missing", param=param)
    if kind == "extra_forbidden":
        return InvalidRequest(f"unknown field {param!r}", param=param)
    value = json.dumps(first["input"], default=str)[:80]
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
            await error_response(error)(scope, receive, send)
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
