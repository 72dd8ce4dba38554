"""Sends one request, and says what came back and when. Needs the extra ``bench``."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec

from chairlift.errors import ConfigurationError

try:
    import aiohttp
except ImportError:
    raise ConfigurationError(
        "the load generator needs aiohttp: pip install 'chairlift[bench]'"
    ) from None

KEEP_ALIVE_SECONDS = 4.0
"""Idle connections are closed before uvicorn does it, at 5: a request that is sent while the server
closes its connection would fail."""
OPEN_FILES = 10_000
"""That this process wants to be allowed, as far as its hard limit goes."""
MAX_QUOTED = 200
"""Characters of an error's message that are kept."""


class ServerTimings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the server says that the time went, in seconds."""

    queue_s: float | None = None
    encode_s: float | None = None
    denoise_s: float | None = None
    decode_s: float | None = None
    total_s: float | None = None


class _Body(msgspec.Struct):
    """What is read of an answer. Pictures are counted and not decoded: that would take the time
    of others.
    """

    data: list[msgspec.Raw]
    timings: ServerTimings | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """How one request ended."""

    finish: float
    """On :func:`time.perf_counter`, when the last byte had come."""
    status: int | None = None
    """Of HTTP; None where there was no answer."""
    images: int = 0
    timings: ServerTimings | None = None
    """None where the answer has none."""
    error: str | None = None
    """Its kind; None where all went well."""
    message: str | None = None
    """What the error says."""


class Client:
    """Connections to a server with OpenAI's images API: as many as are needed, kept open.

    Args:
        base_url: With or without ``/v1`` at its end.
        api_key: Sent as a bearer token.
        timeout: Seconds that a request may take from being sent.

    Raises:
        ConfigurationError: The URL is none of HTTP.
    """

    def __init__(
        self, base_url: str, *, api_key: str | None = None, timeout: float = 600.0
    ) -> None:
        self._url = generations_url(base_url)
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        _allow_many_connections()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            headers=self._headers,
        )
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._session.close()

    async def send(self, body: Mapping[str, Any]) -> Answer:
        """Post ``body`` and wait for the whole answer. What the server or the network does wrong
        is an answer too, and nothing is tried again.
        """
        post = self._session.post(self._url, json=body, allow_redirects=False)
        try:
            async with post as response:
                content = await response.read()
        except TimeoutError:
            message = f"no answer within {self._timeout:g} s"
            return _failed(None, "timeout", message)
        except aiohttp.ClientConnectorError as error:
            return _failed(None, "not connected", _why_not_connected(error))
        except (aiohttp.ClientError, OSError) as error:
            return _failed(None, "connection lost", str(error) or type(error).__name__)
        finish = time.perf_counter()
        return _read(response.status, content, finish, body.get("n", 1))


def generations_url(base_url: str) -> str:
    """Where pictures are asked for.

    Raises:
        ConfigurationError: It is no URL of HTTP, or has more than a server and a path.
    """
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise ConfigurationError(f"--base-url is {base_url!r}; it must be like http://host:8000")
    if "@" in parts.netloc:
        raise ConfigurationError("--base-url has a user or a password; the key is --api-key")
    return f"{base_url.rstrip('/').removesuffix('/v1')}/v1/images/generations"


def _failed(status: int | None, error: str, message: str) -> Answer:
    finish = time.perf_counter()
    return Answer(finish=finish, status=status, error=error, message=message[:MAX_QUOTED])


def _why_not_connected(error: aiohttp.ClientConnectorError) -> str:
    """Without what aiohttp says about TLS even where there is none."""
    cause = error.os_error
    # asyncio has words of its own, TLS and DNS have numbers of their own.
    is_number = not isinstance(error, aiohttp.ClientSSLError) and (cause.errno or 0) > 0
    reason = os.strerror(cause.errno or 0) if is_number else str(cause.strerror or cause)
    return f"{error.host}:{error.port}: {reason}"


def _read(status: int, content: bytes, finish: float, n: object) -> Answer:
    """The answer that these bytes are."""
    if status != 200:
        code, message = _error_of(content)
        kind = f"http {status} {code}" if code else f"http {status}"
        return Answer(finish=finish, status=status, error=kind, message=message[:MAX_QUOTED])
    try:
        body = msgspec.json.decode(content, type=_Body)
    except msgspec.DecodeError as error:
        message = f"{error}: {content[:MAX_QUOTED].decode(errors='replace')}"
        return Answer(
            finish=finish, status=status, error="bad answer", message=message[:MAX_QUOTED]
        )
    images = len(body.data)
    if images != n:
        return Answer(
            finish=finish,
            status=status,
            images=images,
            error="bad answer",
            message=f"{images} pictures came, and {n} were asked for",
        )
    return Answer(finish=finish, status=status, images=images, timings=body.timings)


def _error_of(content: bytes) -> tuple[str | None, str]:
    """Code and message of OpenAI's error object, or no code and the content as it is."""
    text = content.decode(errors="replace")
    try:
        error = msgspec.json.decode(content)["error"]
        code, message = error.get("code"), error.get("message")
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError):
        return None, text
    return code if isinstance(code, str) else None, message if isinstance(message, str) else text


def _allow_many_connections() -> None:
    """Raise this process's soft limit on open files, of which each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
