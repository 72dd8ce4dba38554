"""A reader of server-sent events, as browsers read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx


class Event(NamedTuple):
    """One event."""

    name: str
    data: dict[str, Any]


def events(lines: Iterator[str]) -> Iterator[Event]:
    """What a browser's EventSource makes of the lines."""
    name, data = "message", list[str]()
    for line in lines:
        field, _, value = line.partition(":")
        if field == "data":
            data.append(value.removeprefix(" "))
        elif field == "event":
            name = value.removeprefix(" ")
        elif not line and data:
            yield Event(name, json.loads("\n".join(data)))
            name, data = "message", []


@contextmanager
def event_stream(
    http: httpx.Client, method: str, url: str, **options: Any
) -> Iterator[Iterator[Event]]:
    """The events of an answer, which must be a stream of them."""
    with http.stream(method, url, **options) as answer:
        if answer.status_code != 200:
            answer.read()
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        yield events(answer.iter_lines())
