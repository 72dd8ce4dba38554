"""The lines that operators read: how they look, and how they get to standard error.

A record may say more than its message: ``extra={"fields": {"steps": 20}}``. Nothing here knows what
is logged, and by whom.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["text", "json"]

MAX_LINES = 10_000
"""Lines that may wait for a slow reader before further ones are dropped."""
GATHER_SECONDS = 0.02
"""How long lines are gathered before they are written together."""
CLOSE_SECONDS = 2.0
"""How long a slow reader is waited for at the end."""

STDERR = 2

_PLAIN = re.compile(r"[\w.:/+@-]+", re.ASCII)


class TextFormatter(logging.Formatter):
    """``2026-11-21T08:15:02.123Z INFO chairlift.requests: request outcome=finished steps=20``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """UTC, to the millisecond."""
        return _time(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line, with the fields that have a value behind the message."""
        given = [f" {name}={_show(v)}" for name, v in _fields(record).items() if v is not None]
        return super().formatMessage(record).rstrip("\n") + "".join(given)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message``, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """ASCII without a line break, whatever the message has in it."""
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage().rstrip("\n"),
        }
        entry |= _fields(record)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class LineWriter(logging.Handler):
    """Writes lines on a thread of its own: who logs never waits for whoever reads them. When
    :data:`MAX_LINES` wait already, further ones are dropped, and their number is told later.

    Args:
        log_format: How they look.
        descriptor: Where they go. Not a stream, whose lock a writer that is stuck would keep
            until the interpreter ends, and that ends badly then.
    """

    def __init__(self, log_format: LogFormat, descriptor: int = STDERR) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
        self._descriptor = descriptor
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_LINES)
        self._dropped = 0
        self._told = 0
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Line up a record, which is formatted in the caller's context."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Write what is here, unless nobody takes it; once is enough."""
        if self._thread.is_alive():
            with suppress(queue.Full):
                self._lines.put(None, timeout=CLOSE_SECONDS / 2)
            self._thread.join(CLOSE_SECONDS / 2)
        super().close()

    def _write_all(self) -> None:
        lines: list[str | None] = []
        while None not in lines:
            lines = [self._lines.get()]
            # Who logs has to wake this thread and to share the interpreter with it: that is paid
            # once for all lines of this time.
            time.sleep(GATHER_SECONDS)
            with suppress(queue.Empty):
                while len(lines) < MAX_LINES:
                    lines.append(self._lines.get_nowait())
            self._write("".join(f"{line}\n" for line in lines if line is not None))
            self._tell_dropped()

    def _tell_dropped(self) -> None:
        news = self._dropped - self._told
        if news:
            self._told += news
            message = "%d lines were dropped: standard error takes none"
            record = logging.LogRecord(__name__, logging.WARNING, "", 0, message, (news,), None)
            self._write(self.format(record) + "\n")

    def _write(self, lines: str) -> None:
        data = lines.encode(errors="backslashreplace")
        with suppress(OSError):  # The reader is gone: there is nobody to tell.
            while data:
                data = data[os.write(self._descriptor, data) :]


@contextmanager
def log_lines(
    log_format: LogFormat, *filters: Callable[[logging.LogRecord], bool]
) -> Iterator[None]:
    """Meanwhile all that is logged in this process goes to standard error: warnings, and what
    Chairlift has to say.

    Args:
        log_format: How it looks.
        *filters: See every record first, in the context of who logs it.
    """
    writer = LineWriter(log_format)
    for see in filters:
        writer.addFilter(see)
    root, ours = logging.getLogger(), logging.getLogger("chairlift")
    before = root.handlers, ours.level
    root.handlers = [writer]
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers = before[0]
        ours.setLevel(before[1])
        writer.close()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields


def _show(value: Any) -> str:
    """A value as one word, or quoted: nothing in it can begin a new line or another field."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else repr(text)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
