"""``X-Request-Id``: the name under which a caller, or a proxy before us, knows a request."""

from __future__ import annotations

import logging
import re
import uuid
from contextvars import ContextVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-Id"

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""That of the HTTP request which is being answered. Tasks and callbacks that come from it have it
too, also after it was answered."""

_ACCEPTABLE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""What can't be mistaken for anything else in a log, a header or a URL."""


class RequestIds:
    """ASGI middleware that gives every HTTP request an id, the caller's if that is acceptable, and
    every answer the same.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        id = _choose(Headers(scope=scope).get(HEADER))
        # It stays set: what uvicorn logs after an exception is in the same context.
        request_id.set(id)

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = id
            await send(message)

        await self._app(scope, receive, send_named)


def _choose(given: str | None) -> str:
    return given if given is not None and _ACCEPTABLE.fullmatch(given) else uuid.uuid4().hex


def name_request(record: logging.LogRecord) -> bool:
    """A filter for log records: what is logged on the way of a request has its id."""
    if id := request_id.get():
        record.fields = {"request_id": id} | getattr(record, "fields", {})
    return True
