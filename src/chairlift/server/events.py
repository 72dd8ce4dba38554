"""Server-sent events: what is on its way to one reader, however slowly it reads.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager

import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from chairlift.errors import TooManyStreams

HEARTBEAT_SECONDS = 15.0
"""After so long without an event a comment is sent, so that nobody between takes the connection
for dead."""
MAX_UNREAD = 64
"""Events that may wait for a slow reader before those that can be missed give way."""
RETRY_SECONDS = 5
"""When it is worth trying again, if too many streams are open."""


def format_event(data: object, name: str | None = None) -> bytes:
    """One event with ``data`` as JSON."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + msgspec.json.encode(data) + b"\n\n"


class Outbox:
    """Events for one reader. Whoever puts one in never waits: past :data:`MAX_UNREAD` the oldest
    that may be missed is dropped, or else the new one, if it may be.
    """

    def __init__(self) -> None:
        self._events: deque[tuple[bytes, bool]] = deque()
        self._missable = 0
        self._closed = False
        self._changed = asyncio.Event()

    def put(self, event: bytes, *, missable: bool = False) -> None:
        """Append an event; after :meth:`close` it is passed over."""
        if self._closed:
            return
        if len(self._events) >= MAX_UNREAD and self._missable:
            oldest = next(entry for entry in self._events if entry[1])
            self._events.remove(oldest)
            self._missable -= 1
        elif len(self._events) >= MAX_UNREAD and missable:
            return
        self._events.append((event, missable))
        self._missable += missable
        self._changed.set()

    def close(self) -> None:
        """No event comes any more; those that are here are still read."""
        self._closed = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._events:
                event, missable = self._events.popleft()
                self._missable -= missable
                yield event
                # Between two of them it is noticed that the reader is gone.
                await asyncio.sleep(0)
            if self._closed:
                return
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), HEARTBEAT_SECONDS)
            except TimeoutError:
                yield b": still here\n\n"


class Streams:
    """The event streams that are open.

    Args:
        most: How many there may be.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.open = 0
        """How many there are."""

    @contextmanager
    def place(self) -> Iterator[None]:
        """Room for one more.

        Raises:
            TooManyStreams: There is none.
        """
        if self.open >= self._most:
            raise TooManyStreams(
                f"{self.open} event streams are open, of at most {self._most}",
                retry_after=RETRY_SECONDS,
            )
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


class EventStream(StreamingResponse):
    """The answer that sends events until there are no more, or the reader is gone.

    Args:
        events: They.
        at_end: Called once when it has ended, in whatever way; also if nobody was there for the
            first event, when nothing of ``events`` is run.
        headers: Further ones.
    """

    def __init__(
        self,
        events: AsyncIterator[bytes],
        at_end: Callable[[], object],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            events,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})},
        )
        self._at_end = at_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._at_end()
