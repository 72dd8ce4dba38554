"""Files as answers. A ``Range`` may ask for a part, so that players can seek and downloads go on.

RFC 9110, section 14: a header that names no range of bytes, or several, is ignored, as it may be.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from typing import BinaryIO

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chairlift.errors import RangeNotSatisfiable, StorageFailed

CHUNK_BYTES = 256 * 2**10
"""What is held of a file, for each of its readers."""

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class FileAnswer(Response):
    """A file, or a part of it, read as fast as it is taken.

    Args:
        file: Open for reading; closed when it is sent.
        media_type: Of the whole.
        headers: Further ones; an ``ETag`` among them.
        asked: The value of ``Range``.
        condition: That of ``If-Range``: another tag than the file's asks for the whole.

    Raises:
        RangeNotSatisfiable: The file ends before the range begins; it is closed.
    """

    def __init__(
        self,
        file: BinaryIO,
        media_type: str,
        headers: Mapping[str, str],
        asked: str | None = None,
        condition: str | None = None,
    ) -> None:
        size = os.fstat(file.fileno()).st_size
        try:
            part = find_part(asked, size) if condition in (None, headers["ETag"]) else None
        except RangeNotSatisfiable:
            file.close()
            raise
        own = {"Accept-Ranges": "bytes"}
        if part is not None:
            own["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
        self._file, self._part = file, range(size) if part is None else part
        own["Content-Length"] = str(len(self._part))
        super().__init__(None, 200 if part is None else 206, {**headers, **own}, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        with self._file:
            self._file.seek(self._part.start)
            left = len(self._part)
            chunk = await self._read(left)  # Before the head, which can't be taken back.
            await send(head)
            while left := left - len(chunk):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                chunk = await self._read(left)
            await send({"type": "http.response.body", "body": chunk})

    async def _read(self, left: int) -> bytes:
        try:
            chunk = await asyncio.to_thread(self._file.read, min(left, CHUNK_BYTES))
        except OSError as error:
            raise StorageFailed(f"the file can't be read: {error.strerror}") from error
        if left and not chunk:
            raise StorageFailed(f"the file can't be read: {left} bytes are missing at its end")
        return chunk


def find_part(asked: str | None, size: int) -> range | None:
    """Which bytes of a file a ``Range`` names; None is all of them.

    Args:
        asked: The header's value, where there is one.
        size: The file's, in bytes.

    Raises:
        RangeNotSatisfiable: The file ends before.
    """
    named = _RANGE.fullmatch(asked or "")
    if named is None or named[0] == "bytes=-":
        return None
    first, last = named.groups()
    if not first:
        part = range(max(0, size - int(last)), size)
    elif last and int(last) < int(first):
        return None
    else:
        part = range(int(first), min(size, int(last) + 1) if last else size)
    if not part:
        message = f"Range is {asked!r}; the file has {size} bytes"
        raise RangeNotSatisfiable(message, param="Range", size=size)
    return part


def has_copy(held: str, etag: str) -> bool:
    """Whether ``held``, the value of ``If-None-Match``, has this tag; strong and weak tags are the
    same here.
    """
    tags = {tag.strip().removeprefix("W/") for tag in held.split(",")}
    return bool(tags & {etag, "*"})
