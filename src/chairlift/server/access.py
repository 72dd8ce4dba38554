"""Who may come in: the API key, checked before anything else of a request is read."""

from __future__ import annotations

import hmac

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from chairlift.errors import InvalidApiKey
from chairlift.server.refusals import error_response

OPEN_PATHS = ("/health", "/")
"""What needs no key: nothing in it is secret."""
OPEN_FOLDER = "/page/"


class KeyCheck:
    """ASGI middleware that lets a request in if it needs no key or has the right one.

    Args:
        app: What is behind it.
        key: What callers must send as a bearer token.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_open(scope["path"]) or self._has_key(Request(scope)):
            await self._app(scope, receive, send)
            return
        error = InvalidApiKey("send the API key as a bearer token")
        await error_response(Request(scope), error)(scope, receive, send)

    def _has_key(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # Headers are decoded as Latin-1; so encoded again, these are the bytes that were sent.
        matches = hmac.compare_digest(given.encode("latin-1"), self._key)
        return matches and scheme.lower() == "bearer"


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)
