"""Connections that can't be held for ever: what uvicorn's protocol lacks.

A caller owes a head when it has connected, and again when it has begun one; the rest of a body
that was answered before it was there counts as the same. Who owes one and doesn't send it in time
is disconnected, and so is who doesn't take what was sent. Time for a body that is wanted is kept
by :class:`~chairlift.server.intake.Intake`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import uuid
from http import HTTPStatus
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from chairlift.errors import HeadTooLarge, InvalidRequest, RequestError, Unavailable
from chairlift.server.limits import Limits
from chairlift.server.request_id import HEADER
from chairlift.server.security import HEADERS

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1
"""When it is worth trying again, if there are too many connections."""


class HttpConfig(uvicorn.Config):
    """uvicorn's configuration, with which every server of this project runs.

    Args:
        app: The application.
        limits: Those of its connections.
        shutdown_seconds: How long connections may stay open when the server ends; None is for
            ever.
        ssl_certfile: PEM; with one, HTTPS is spoken.
        ssl_keyfile: PEM; None is in the certificate's file.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        *,
        shutdown_seconds: int | None = None,
        ssl_certfile: Path | None = None,
        ssl_keyfile: Path | None = None,
    ) -> None:
        self.limits = limits
        super().__init__(
            app,
            http=GuardedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,  # Its lines are written like ours.
            log_level="warning",
            access_log=False,
            server_header=False,
            ssl_certfile=ssl_certfile,
            ssl_keyfile=ssl_keyfile,
            reset_contextvars=True,  # A request is in no trace of the one before it.
            timeout_graceful_shutdown=shutdown_seconds,
            h11_max_incomplete_event_size=limits.max_head_bytes,
        )


class GuardedProtocol(H11Protocol):
    """uvicorn's protocol for h11, which bounds a head by itself; the faster httptools doesn't."""

    def __init__(self, config: HttpConfig, *arguments: Any, **named: Any) -> None:
        super().__init__(config, *arguments, **named)
        self._limits = config.limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------------ coming and going

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        most = self._limits.max_connections
        if len(self.connections) > most:
            logger.warning("a connection is refused: %d are open", most)
            message = f"{most} connections are open, which is as many as there may be"
            self._refuse(Unavailable(message, retry_after=RETRY_SECONDS))
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_awaiting_head()
        self._stop_watching_reader()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server ends. Who is being answered is waited for; who has still not sent the body
        soon is not.
        """
        super().shutdown()
        if self._is_owed_body:
            self.loop.call_later(self._limits.farewell_seconds, self._give_up_body)

    @property
    def _is_owed_body(self) -> bool:
        cycle = self.cycle
        return cycle is not None and cycle.more_body and not cycle.response_started

    def _give_up_body(self) -> None:
        if self._is_owed_body:
            self._refuse(Unavailable("the server is shutting down"))

    # ------------------------------------------------------------------ slow senders

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_awaiting_head()
        elif self._head_timer is None:
            self._await_head()

    def _await_head(self) -> None:
        seconds = self._limits.head_seconds
        self._head_timer = self.loop.call_later(seconds, self.transport.close)

    def _stop_awaiting_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def send_400_response(self, msg: str) -> None:
        """What was received isn't HTTP."""
        error = sys.exception()
        is_too_large = (
            isinstance(error, h11.RemoteProtocolError)
            and error.error_status_hint == HeadTooLarge.status
        )
        self._refuse(self._too_large() if is_too_large else InvalidRequest(msg))

    def _too_large(self) -> HeadTooLarge:
        return HeadTooLarge(f"the head is larger than {self._limits.max_head_bytes} bytes")

    # ------------------------------------------------------------------ slow readers

    def pause_writing(self) -> None:
        """Much waits for the reader, and nothing more is written until it has taken that."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """The reader has taken most of it."""
        self._stop_watching_reader()
        super().resume_writing()

    def _watch_reader(self) -> None:
        self._reader_timer = self.loop.call_later(
            self._limits.reader_seconds,
            self._check_reader,
            self.transport.get_write_buffer_size(),
        )

    def _check_reader(self, unread_before: int) -> None:
        taken = unread_before - self.transport.get_write_buffer_size()
        limits = self._limits
        if taken < limits.reader_bytes_per_second * limits.reader_seconds:
            self.transport.abort()
        else:
            self._watch_reader()

    def _stop_watching_reader(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    # ------------------------------------------------------------------ answers without the app

    def _refuse(self, error: RequestError) -> None:
        """Answer a connection from which no request gets to the application, and close it."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or self._is_owed_body:
            self.transport.write(_answer(error))
        self.transport.close()


def _answer(error: RequestError) -> bytes:
    """The whole of an answer, as bytes."""
    body = json.dumps({"error": error.to_object()}).encode()
    headers = HEADERS | {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "Connection": "close",
        HEADER: uuid.uuid4().hex,
    }
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    status = HTTPStatus(error.status)
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
