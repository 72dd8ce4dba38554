"""Events on their way to one reader."""

from __future__ import annotations

import asyncio
import json

import pytest

from chairlift.server import events as events_module
from chairlift.server.events import MAX_UNREAD, Outbox, format_event


async def read(outbox: Outbox) -> list[bytes]:
    return [event async for event in outbox]


def filled(*entries: tuple[bytes, bool]) -> Outbox:
    outbox = Outbox()
    for event, missable in entries:
        outbox.put(event, missable=missable)
    outbox.close()
    return outbox


def test_an_event_has_a_name_and_json_on_one_line() -> None:
    event = format_event({"text": "a\nb", "bytes": b"\xff"}, "look").decode()
    head, data, *rest = event.split("\n")
    assert head == "event: look"
    assert json.loads(data.removeprefix("data: ")) == {"text": "a\nb", "bytes": "/w=="}
    assert rest == ["", ""]
    assert format_event(1) == b"data: 1\n\n"


def test_events_are_read_in_order_until_the_outbox_is_closed() -> None:
    outbox = filled((b"a", False), (b"b", True), (b"c", False))
    outbox.put(b"late")
    assert asyncio.run(read(outbox)) == [b"a", b"b", b"c"]


def test_a_slow_reader_misses_the_oldest_of_what_may_be_missed() -> None:
    many = [(str(number).encode(), True) for number in range(MAX_UNREAD + 5)]
    assert asyncio.run(read(filled((b"first", False), *many, (b"last", False)))) == [
        b"first",
        *(event for event, _ in many[7:]),
        b"last",
    ]


def test_what_may_not_be_missed_is_kept_past_the_bound() -> None:
    many = [(str(number).encode(), False) for number in range(MAX_UNREAD + 5)]
    outbox = filled(*many, (b"preview", True), (b"last", False))
    assert asyncio.run(read(outbox)) == [*(event for event, _ in many), b"last"]


def test_a_quiet_stream_says_that_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "HEARTBEAT_SECONDS", 0.01)

    async def listen() -> list[bytes]:
        outbox = Outbox()
        reader = aiter(outbox)
        heard = [await anext(reader), await anext(reader)]
        outbox.put(b"a")
        return [*heard, await anext(reader)]

    comment, again, event = asyncio.run(listen())
    assert comment == again == b": still here\n\n"
    assert event == b"a"
