"""Reads requests whole before anybody looks at them, within bounds of size and time."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chairlift.errors import (
    HeadTooLarge,
    PayloadTooLarge,
    RequestCancelled,
    RequestError,
    RequestTimeout,
)
from chairlift.server.limits import Limits
from chairlift.server.refusals import error_response

WITHOUT_BODY = ("GET", "HEAD")
"""Methods of which no route reads a body."""


class Intake:
    """ASGI middleware that bounds heads and bodies, and has all of a body before the application
    sees the first byte.

    Args:
        app: What is behind it.
        limits: The bounds.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check_head(scope)
            if scope["method"] not in WITHOUT_BODY:
                receive = _replay(await self._read_in_time(scope, receive), receive)
        except RequestError as error:
            await error_response(Request(scope), error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_head(self, scope: Scope) -> None:
        """One that came at once; one that is without end is stopped before, by its connection."""
        headers, limits = scope["headers"], self._limits
        if len(headers) > limits.max_headers:
            raise HeadTooLarge(
                f"there are {len(headers)} headers; at most {limits.max_headers} are allowed"
            )
        size = len(scope.get("raw_path", b"")) + len(scope["query_string"])
        size += sum(len(name) + len(value) for name, value in headers)
        if size > limits.max_head_bytes:
            raise HeadTooLarge(f"the head is larger than {limits.max_head_bytes} bytes")

    async def _read_in_time(self, scope: Scope, receive: Receive) -> bytes:
        seconds = self._limits.body_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._read(scope, receive)
        except TimeoutError:
            raise RequestTimeout(f"the body was not there after {seconds:g} seconds") from None

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        most = self._limits.max_body_bytes
        body = bytearray()
        size = int(dict(scope["headers"]).get(b"content-length", b"0"))
        more = True
        while more:
            if size > most:
                raise PayloadTooLarge(f"the body is larger than {most} bytes")
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RequestCancelled("the caller has gone away in the middle of the body")
            body += message.get("body", b"")
            size = max(size, len(body))
            more = message.get("more_body", False) or size > most
        return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """What receives a body that was read, and then what comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
