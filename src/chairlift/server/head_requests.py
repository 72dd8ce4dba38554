"""HEAD: what GET would answer, without its content (RFC 9110, section 9.3.2)."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadRequests:
    """ASGI middleware by which every path that answers GET answers HEAD too; an answer without end
    ends after its head.

    Args:
        app: What is behind it, which sees GET.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            await send(message)
            await send({"type": "http.response.body"})
            raise _HeadSent

        try:
            await self._app(_as_get(scope), receive, send_head)
        except* _HeadSent:  # On its own, or out of the tasks that send a stream.
            pass


def _as_get(scope: Scope) -> Scope:
    """The GET that a HEAD asks about: of the whole, since a range means nothing in it (14.2)."""
    headers = [header for header in scope["headers"] if header[0] != b"range"]
    return {**scope, "method": "GET", "headers": headers}


class _HeadSent(BaseException):
    """Nobody wants the rest. No error, and so nothing that answers errors sees it."""
