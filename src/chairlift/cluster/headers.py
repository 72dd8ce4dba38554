"""The one header that Serve's proxy sets as well."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chairlift.server.request_id import HEADER


class WithoutRequestId:
    """ASGI middleware that leaves out ``X-Request-Id``: the proxy, which has chosen the id that the
    application was given, says it too, and an answer must not have it twice.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)[HEADER]
            await send(message)

        await self._app(scope, receive, send_without)
