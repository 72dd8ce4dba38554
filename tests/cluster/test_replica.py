"""A replica without Ray: what its parts say of an engine."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from chairlift.cluster.load import Load, digest, read_load
from chairlift.cluster.messages import FromReplica, Report, decode_from_replica, encode
from chairlift.cluster.replica import EngineReplica
from chairlift.cluster.reports import Reports, Stream
from chairlift.engine.messages import Accepted, Failed, Finished, Preview
from chairlift.engine.ride import Ride
from chairlift.engine.worker_config import WorkerConfig
from chairlift.errors import Unavailable
from chairlift.request import GenerationRequest
from chairlift.scheduling.costs import Shape
from tests.builders import a_request
from tests.cluster.builders import report

WORKER = WorkerConfig(model="fake:0.02")


# ---------------------------------------------------------------------- one stream


async def messages(replica: EngineReplica, request: GenerationRequest) -> list[FromReplica]:
    """All that is said on the stream of a request."""
    stream = replica.generate(encode(request), "front end")
    return [decode_from_replica(message) async for message in stream]


async def use(replica: EngineReplica) -> None:
    """What a front end may ask of a replica, one thing after the other."""
    said = await messages(replica, a_request("done", partial_images=1))
    kinds = [type(message) for message in said]
    assert kinds[0] is Report
    assert {Accepted, Preview} <= set(kinds)
    assert kinds[-1] is Finished
    ticks = [tick for one in said if isinstance(one, Report) for tick in one.activity.ticks]
    assert len(ticks) == a_request().steps

    [failed] = await messages(replica, replace(a_request("other"), model="other"))
    assert isinstance(failed, Failed)
    assert failed.code == "model_not_found"

    long = a_request("long", steps=200)
    async with aclosing(replica.generate(encode(long), "front end")) as stream:
        await anext(stream)
        assert list(replica.client.rides) == ["long"]
        # It comes again, because its front end has lost sight of it.
        again = replica.generate(encode(long), "front end")
        await anext(again)
        assert [decode_from_replica(one) async for one in stream][-1] == Failed(
            request_id="long", code="cancelled", message="the request was cancelled"
        )
        await again.aclose()
    await asyncio.sleep(0)
    assert not replica.client.rides

    replica.client.takes_requests = False
    [failed] = await messages(replica, a_request("late"))
    assert isinstance(failed, Failed)
    assert failed.code == "unavailable"


def test_a_replica_says_on_each_stream_what_becomes_of_its_request() -> None:
    async def run() -> None:
        replica = EngineReplica(WORKER, hang_timeout=60)
        await replica.start()
        try:
            await use(replica)
        finally:
            await replica.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("failure", "silent", "sick"),
    [(None, 0.0, False), (None, 89.0, False), (None, 91.0, True), ("no memory", 0.0, True)],
)
def test_a_replica_is_sick_when_its_engine_cannot_be_made_to_run(
    monkeypatch: pytest.MonkeyPatch, failure: str | None, silent: float, sick: bool
) -> None:
    replica = EngineReplica(WORKER, hang_timeout=60)
    engine = SimpleNamespace(failure=failure, silent_seconds=silent)
    monkeypatch.setattr(replica, "client", engine)
    if sick:
        with pytest.raises(Unavailable):
            replica.check_health()
    else:
        replica.check_health()


# ---------------------------------------------------------------------- reports


def reports_in(stream: Stream) -> list[Report]:
    found = []
    while not stream.empty():
        message = stream.get_nowait()
        assert isinstance(message, Report)
        found.append(message)
    return found


def test_the_oldest_stream_of_a_front_end_carries_all_its_reports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chairlift.cluster.reports.REPORT_SECONDS", 0.0)

    async def run() -> None:
        reports = Reports("first")
        streams: list[Stream] = [asyncio.Queue() for _ in range(3)]
        one, two, other = streams
        with reports.on(one, "a"), reports.on(two, "a"), reports.on(other, "b"):
            assert [len(reports_in(stream)) for stream in streams] == [1, 1, 1]
            reports.add(report("x").activity)
            assert [len(reports_in(stream)) for stream in streams] == [1, 0, 1]
        reports.add(report("x").activity)
        assert [len(reports_in(stream)) for stream in streams] == [0, 0, 0]

    asyncio.run(run())


def test_ticks_that_were_not_told_come_with_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chairlift.cluster.reports.REPORT_SECONDS", 3600.0)

    async def run() -> None:
        reports, stream = Reports("first"), Stream()
        with reports.on(stream, "a"):
            reports.add(report("x").activity)
            reports.add(report("x", backlog=1.0).activity)
            reports.send(stream, "a")
            first, last = reports_in(stream)
        assert first.activity.ticks == []
        assert len(last.activity.ticks) == 2
        assert (last.activity.backlog_seconds, last.activity.eta_s) == (1.0, {"x": 0.5})

    asyncio.run(run())


# ---------------------------------------------------------------------- load


class Engine:
    """As much of a client as a load looks at."""

    def __init__(self) -> None:
        self.rides: dict[str, Ride] = {}
        self.is_ready = True
        self.activity = report("a", backlog=3.0).activity
        self.on_end: list[Any] = []
        self.listeners: list[Any] = []
        self.listen = self.listeners.append


def test_a_load_says_who_is_there_and_what_a_step_takes() -> None:
    async def run() -> None:
        engine = Engine()
        load = Load(engine)  # type: ignore[arg-type]
        loop = asyncio.get_running_loop()
        ride = Ride(a_request(width=64, height=32, n=2, steps=10), loop.create_future(), 0.0)
        engine.rides["a"] = ride
        ride.steps = [5, 10]
        assert load.describe()["newest"] == []
        ride.accept(3.0, now=0.0)
        engine.listeners[0](engine.activity)
        told = load.describe()
        assert told["seconds_per_pixel_step"] == pytest.approx(3.0 / (2 * 5 * 64 * 32))
        assert told["newest"] == [digest("a")]
        place = read_load(told, unseen_seconds=1.0)
        assert place is not None
        assert place.backlog_seconds == 4.0
        assert place.shapes == {Shape(64, 32)}
        assert place.prompts == {digest("a boat")}
        engine.rides.clear()
        engine.on_end[0](ride)
        assert load.describe()["prompts"] == [digest("a boat")]
        assert load.describe()["shapes"] == []
        engine.is_ready = False
        assert read_load(load.describe()) is None

    asyncio.run(run())
