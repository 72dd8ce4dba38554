"""Who may come in: API keys, checked before anything else of a request is read.

A key says that its bearer may come in, and whose requests and jobs are its bearer's: nobody else
sees or ends them.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import logging
import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from chairlift.errors import ConfigurationError, InvalidApiKey
from chairlift.server.refusals import error_response

logger = logging.getLogger(__name__)

OPEN_PATHS = ("/health", "/")
"""What needs no key: nothing in it is secret. A browser that loads a page has no way to send a key,
so the page's files are open, and the page itself asks for the key and sends it with all it asks.
"""
OPEN_FOLDER = "/page/"
METRICS = "/metrics"

OWNER_CHARACTERS = 32
"""Hexadecimal digits; no two keys have the same."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^A-Z\s/*?#@]+")
_READABLE_BY_OTHERS = 0o044

caller: ContextVar[str] = ContextVar("caller", default="")
"""Which of the keys the request that is being answered came with, ``key 1`` for the first; never
the key itself."""

owner: ContextVar[str] = ContextVar("owner", default="")
"""Whose the request is that is being answered, see :func:`owner_of`; empty where no key is needed.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """Who is let in.

    Raises:
        ConfigurationError: An origin is none.
    """

    keys: tuple[str, ...] = field(default=(), repr=False)
    """Callers must send one of them as a bearer token; without any, everybody is let in."""
    open_metrics: bool = False
    """Whether the metrics need no key."""
    cors_origins: tuple[str, ...] = ()
    """Whose pages may call the server from a browser, like ``https://example.com``."""
    only_host: str | None = None
    """The name in a URL by which alone the server is reached, beside those of loopback; None for
    any."""

    def __post_init__(self) -> None:
        for origin in self.cors_origins:
            if not _ORIGIN.fullmatch(origin):
                raise ConfigurationError(
                    f"CORS origin is {origin!r}; it must be like https://example.com or "
                    "http://127.0.0.1:3000, without a path"
                )


class KeyCheck:
    """ASGI middleware that lets a request in if it needs no key or has a right one.

    Args:
        app: What is behind it.
        access: With at least one key.
        basic: How the paths begin that also take a key as the password of HTTP's basic scheme.
    """

    def __init__(self, app: ASGIApp, access: Access, basic: tuple[str, ...] = ()) -> None:
        self._app = app
        self._basic = basic
        self._open_metrics = access.open_metrics
        self._digests = [_digest(key.encode()) for key in access.keys]
        self._owners = [owner_of(key) for key in access.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_open(scope["path"], open_metrics=self._open_metrics):
            await self._app(scope, receive, send)
            return
        sent = self._sent_key(Headers(scope=scope), scope["path"])
        number = None if sent is None else self._find_key(sent)
        if number is None:
            error = InvalidApiKey("send the API key as a bearer token")
            await error_response(Request(scope), error)(scope, receive, send)
            return
        caller.set(f"key {number}")
        owner.set(self._owners[number - 1])
        await self._app(scope, receive, send)

    def _sent_key(self, headers: Headers, path: str) -> bytes | None:
        """What came as a key."""
        scheme, _, given = headers.get("Authorization", "").partition(" ")
        # Headers are decoded as Latin-1; so encoded again, these are the bytes that were sent.
        credentials = given.encode("latin-1")
        if scheme.lower() == "bearer":
            return credentials
        if scheme.lower() == "basic" and path.startswith(self._basic):
            try:
                return base64.b64decode(credentials, validate=True).partition(b":")[2]
            except binascii.Error:
                return None
        return None

    def _find_key(self, sent: bytes) -> int | None:
        """The number of the key that was sent, from 1."""
        digest = _digest(sent)
        # Always with all of them, and each in constant time, so that nothing is learned from how
        # long it takes; of digests, because lengths would be.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return matches.index(True) + 1 if any(matches) else None


def owner_of(key: str) -> str:
    """The name under which a key's requests and jobs are kept: the same wherever the key stands in
    the list, and not the key.
    """
    return _digest(b"owner " + key.encode()).hex()[:OWNER_CHARACTERS]


def is_open(path: str, *, open_metrics: bool = False) -> bool:
    """Whether a path needs no key."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER) or (open_metrics and path == METRICS)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what has this name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def split_keys(texts: Iterable[str]) -> tuple[str, ...]:
    """Keys with commas or whitespace between them.

    Raises:
        ConfigurationError: There is none in one of the texts.
    """
    found: list[str] = []
    for text in texts:
        keys = re.findall(r"[^,\s]+", text)
        if not keys:
            raise ConfigurationError("the key is empty")
        found += keys
    return tuple(found)


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys in a file: one a line, apart from lines that start with ``#``.

    Raises:
        ConfigurationError: It can't be read, or has no key, or a line that is none.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        mode = path.stat().st_mode
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8"
        raise ConfigurationError(f"the file of API keys {path} can't be read: {reason}") from None
    if mode & _READABLE_BY_OTHERS:
        logger.warning("others can read the API keys in %s; chmod 600 prevents it", path)
    keys = []
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        if len(line.split()) > 1:
            raise ConfigurationError(f"line {number} of {path} has a space; a key has none")
        keys.append(line)
    if not keys:
        raise ConfigurationError(f"the file of API keys {path} has none")
    return tuple(keys)


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()
