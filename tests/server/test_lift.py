"""What everybody who looks on is told, and how often."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from chairlift.engine.messages import Activity, Rider, Tick
from chairlift.engine.ride import Ride
from chairlift.request import RowId
from chairlift.server import lift
from chairlift.server.events import Outbox
from chairlift.server.lift import Lift
from tests.builders import a_request


def an_activity(*seconds: float, running: int = 0) -> Activity:
    """A report of ticks that took so long."""
    ticks = [
        Tick(seconds=each, width=64, height=64, frames=1, entries=1, riders=[]) for each in seconds
    ]
    return Activity(ticks=ticks, running=running, waiting=0, backlog_seconds=0.0)


async def a_ride(id: str, owner: str) -> Ride:
    """One that waits."""
    loop = asyncio.get_running_loop()
    request = dataclasses.replace(a_request(id), owner=owner)
    return Ride(request, loop.create_future(), loop.time())


class Stage:
    """An engine as far as the lift sees it: it reports what it is told to."""

    def __init__(self) -> None:
        self.activity = an_activity()
        self.is_closed = False
        self.rides: dict[str, Any] = {}
        self.listeners: set[Callable[[Activity], None]] = set()

    def listen(self, listener: Callable[[Activity], None]) -> Callable[[], None]:
        self.listeners.add(listener)
        return lambda: self.listeners.discard(listener)

    def report(self, activity: Activity) -> None:
        self.activity = activity
        for listener in list(self.listeners):
            listener(activity)


async def next_of(reader: Outbox) -> tuple[bytes, list[float]]:
    """The next event, and how long its ticks took."""
    event = await anext(aiter(reader))
    return event, [tick["seconds"] for tick in json.loads(event.partition(b"data: ")[2])["ticks"]]


def test_reports_that_come_fast_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lift, "REPORT_SECONDS", 0.01)

    async def look() -> None:
        stage = Stage()
        cabin = Lift(stage)
        one, other = Outbox(), Outbox()
        cabin.join(one)
        cabin.join(other)
        assert (await next_of(one))[1] == (await next_of(other))[1] == []
        for number in range(5):
            stage.report(an_activity(number, running=1))
        first, second = await next_of(one), await next_of(other)
        assert first[1] == [0, 1, 2, 3, 4]
        assert first[0] is second[0]  # written once
        stage.report(an_activity(5))
        assert (await next_of(one))[1] == [5]

    asyncio.run(look())


def test_a_reader_with_a_key_is_told_which_requests_are_its_own() -> None:
    async def look() -> None:
        stage = Stage()
        cabin = Lift(stage)
        owners = {"anybody": "", "one": "one", "other": "other"}
        stage.rides = {name: await a_ride(name, owner) for name, owner in owners.items()}
        riders = [Rider(RowId(name, 0), 0, 10) for name in ("anybody", "one", "gone")]
        tick = Tick(seconds=0.1, width=64, height=64, frames=1, entries=1, riders=riders)
        readers = {owner: Outbox() for owner in ("", "one", "other", "stranger")}
        for owner, reader in readers.items():
            cabin.join(reader, owner)
        stage.report(Activity(ticks=[tick], running=3, waiting=0, backlog_seconds=0.0))
        stage.is_closed = True
        stage.report(stage.activity)
        own = {}
        for owner, reader in readers.items():
            first, told, *_ = [json.loads(event[6:]) async for event in reader]
            own[owner] = [first["own"], told["own"]]
        assert own == {
            "": [None, None],
            "one": [["one"], ["one"]],
            "other": [["other"], ["other"]],
            "stranger": [[], []],
        }

    asyncio.run(look())


def test_who_leaves_is_told_nothing_and_after_the_last_nobody_listens() -> None:
    async def look() -> None:
        stage = Stage()
        cabin = Lift(stage)
        one, other = Outbox(), Outbox()
        leave, leave_too = cabin.join(one), cabin.join(other)
        leave()
        assert len(stage.listeners) == 1
        leave_too()
        leave_too()
        assert not stage.listeners
        stage.report(an_activity(1.0))
        assert (await next_of(one))[1] == []
        again = Outbox()
        cabin.join(again)
        assert (await next_of(again))[1] == []  # nothing of before

    asyncio.run(look())


def test_all_is_told_before_the_end() -> None:
    async def look() -> None:
        stage = Stage()
        cabin, reader = Lift(stage), Outbox()
        cabin.join(reader)
        stage.report(an_activity(1.0))
        stage.is_closed = True
        stage.report(an_activity(2.0))
        assert [json.loads(event[6:])["ticks"] != [] async for event in reader] == [False, True]
        late = Outbox()
        cabin.join(late)
        assert len([event async for event in late]) == 1

    asyncio.run(look())
