"""What foreign web pages can't do through a caller's browser: headers, origins, content types.

It matters most where there is no key: a browser reaches what listens on loopback, whichever page
asks it to.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chairlift.errors import (
    CrossSiteRequest,
    MisdirectedRequest,
    RequestError,
    UnsupportedMediaType,
)
from chairlift.server.access import Access, is_loopback
from chairlift.server.refusals import error_response
from chairlift.server.request_id import HEADER

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
"""They change nothing."""
CORS_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
CORS_HEADERS = ("*",)
"""OpenAI's client sends a dozen of its own, and which they are changes."""
CORS_EXPOSED = (
    HEADER,
    "X-Chairlift-Id",
    "X-Chairlift-Eta",
    "Retry-After",
    "Location",
    "ETag",
    "Content-Range",
)

JSON = "application/json"
RESOURCE_POLICY = "Cross-Origin-Resource-Policy"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    RESOURCE_POLICY: "same-origin",
}


def with_headers(app: ASGIApp, access: Access) -> ASGIApp:
    """The application with the headers that browsers heed, on every answer."""
    if access.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=access.cors_origins,
            allow_methods=CORS_METHODS,
            allow_headers=CORS_HEADERS,
            expose_headers=CORS_EXPOSED,
            allow_private_network=True,
        )
    return SecurityHeaders(app, access)


class SecurityHeaders:
    """ASGI middleware that adds :data:`HEADERS` where an answer doesn't have its own, and keeps
    JSON out of caches.

    Args:
        app: What is behind it.
        access: Says whose pages may use the answers.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._origins = access.cors_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_invited = Headers(scope=scope).get("Origin") in self._origins

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    if not (is_invited and name == RESOURCE_POLICY):
                        headers.setdefault(name, value)
                if _media_type(headers) == JSON:
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)


class BrowserGuard:
    """ASGI middleware that refuses what a foreign page could make a browser send, before the body
    is parsed.

    Args:
        app: What is behind it.
        access: Says whose pages may send, and to which host.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope["method"], Headers(scope=scope))
            except RequestError as error:
                await error_response(Request(scope), error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, method: str, headers: Headers) -> None:
        own = self._access.only_host
        # A foreign name may have been made to lead here (DNS rebinding): for the browser, the page
        # that came from there then is of the same origin as this server.
        # Every browser names a host; what speaks HTTP/1.0, such as a probe, needn't.
        host = headers.get("Host")
        if own is not None and host is not None and not _is_own(host, own):
            raise MisdirectedRequest(
                f"without an API key, the Host must be {own}, localhost or a loopback address"
            )
        if method in SAFE_METHODS:
            return
        if _is_cross_site(headers) and headers.get("Origin") not in self._access.cors_origins:
            raise CrossSiteRequest("pages of other sites can't send this unless CORS allows them")
        # A page may send a form, but no JSON, anywhere without asking first.
        if _has_body(headers) and _media_type(headers) != JSON:
            raise UnsupportedMediaType(f"the body must be a JSON object, sent as {JSON}")


def _is_own(host: str, own: str) -> bool:
    name = host.lower()
    if not name.endswith("]") and ":" in name:
        name = name.rpartition(":")[0]
    name = name.strip("[]")
    return name == own.lower() or is_loopback(name)


def _is_cross_site(headers: Headers) -> bool:
    """Whether a browser says so; other programs, and browsers of before 2023, say nothing."""
    return headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")


def _has_body(headers: Headers) -> bool:
    """Whether there is a body, or, as with an empty form, its type is named."""
    if "Content-Type" in headers or "Transfer-Encoding" in headers:
        return True
    return headers.get("Content-Length", "0") != "0"


def _media_type(headers: Headers) -> str:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()
