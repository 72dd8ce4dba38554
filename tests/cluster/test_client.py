"""The front end's side of a cluster, with replicas that are not there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chairlift.cluster import client as client_module
from chairlift.cluster.client import MAX_LOSSES, ClusterClient
from chairlift.cluster.sightings import FORGET_SECONDS, Sightings
from chairlift.engine.messages import Failed
from chairlift.engine.ride import Ride
from chairlift.errors import (
    EngineCrash,
    GenerationFailed,
    InvalidRequest,
    QueueFull,
    RequestCancelled,
    RequestError,
    Unavailable,
)
from chairlift.request import GenerationRequest
from tests.builders import a_request
from tests.cluster.builders import (
    FakeReplicas,
    Script,
    finishes,
    hangs,
    is_absent,
    is_lost,
    report,
)


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_BACKOFF_SECONDS", "MAX_BACKOFF_SECONDS"):
        monkeypatch.setattr(client_module, name, 0.0)


def create_client(replicas: FakeReplicas, max_wait: float = 60.0) -> ClusterClient:
    return ClusterClient(replicas, policy="balanced", max_wait=max_wait)


def ride_with(*scripts: Script, id: str = "a", max_wait: float = 60.0) -> tuple[Ride, FakeReplicas]:
    """A ride that has ended."""
    replicas = FakeReplicas(*scripts)

    async def ride() -> Ride:
        riding = create_client(replicas, max_wait).submit(a_request(id))
        await asyncio.wait({riding.answer})
        return riding

    return asyncio.run(ride()), replicas


def failure_of(ride: Ride) -> RequestError:
    error = ride.answer.exception()
    assert isinstance(error, RequestError)
    return error


def test_a_request_whose_replica_is_lost_is_done_by_the_next() -> None:
    ride, replicas = ride_with(is_lost, is_lost, finishes)
    assert ride.answer.result().images == [b"a picture"]
    assert [call.id for call in replicas.calls] == ["a", "a", "a"]
    assert replicas.calls[0] == replicas.calls[2]
    assert ride.crashes == 2


async def says_nothing_more(replicas: FakeReplicas, request: GenerationRequest) -> Any:
    yield report(request.id)


async def shuts_down(replicas: FakeReplicas, request: GenerationRequest) -> Any:
    yield Failed(request_id=request.id, code="unavailable", message="the server is shutting down")


@pytest.mark.parametrize("script", [says_nothing_more, shuts_down])
def test_a_replica_that_ends_too_early_is_lost(script: Script) -> None:
    ride, _ = ride_with(script, finishes)
    assert ride.outcome == "finished"
    assert ride.crashes == 1


def test_a_request_that_loses_too_many_replicas_fails() -> None:
    ride, replicas = ride_with(is_lost)
    assert isinstance(failure_of(ride), EngineCrash)
    assert len(replicas.calls) == MAX_LOSSES


async def refuses(replicas: FakeReplicas, request: GenerationRequest) -> Any:
    yield Failed(request_id=request.id, code="invalid_value", message="no", param="n")


async def is_full(replicas: FakeReplicas, request: GenerationRequest) -> Any:
    raise QueueFull("no room", retry_after=7)
    yield


async def is_broken(replicas: FakeReplicas, request: GenerationRequest) -> Any:
    raise ZeroDivisionError
    yield


@pytest.mark.parametrize(
    ("script", "error", "param", "retry_after"),
    [
        (refuses, InvalidRequest, "n", None),
        (is_full, QueueFull, None, 7),
        (is_broken, GenerationFailed, None, None),
    ],
)
def test_an_error_of_a_replica_is_the_callers_and_not_tried_again(
    script: Script, error: type[RequestError], param: str | None, retry_after: int | None
) -> None:
    ride, replicas = ride_with(script)
    found = failure_of(ride)
    assert type(found) is error
    assert (found.param, found.retry_after) == (param, retry_after)
    assert len(replicas.calls) == 1


@pytest.mark.parametrize(
    ("id", "scripts"), [("job_a", (is_full, finishes)), ("a", (is_lost, is_full, finishes))]
)
def test_who_was_let_in_waits_for_room_and_is_not_refused(
    id: str, scripts: tuple[Script, ...]
) -> None:
    ride, replicas = ride_with(*scripts, id=id)
    assert ride.outcome == "finished"
    assert len(replicas.calls) == len(scripts)


def test_who_waits_too_long_for_a_replica_is_told_when_to_come_again() -> None:
    ride, replicas = ride_with(is_absent, max_wait=0.01)
    found = failure_of(ride)
    assert isinstance(found, Unavailable)
    assert found.retry_after
    assert replicas.closed == 1


def test_a_job_waits_for_a_replica_for_as_long_as_it_takes() -> None:
    async def comes_late(replicas: FakeReplicas, request: GenerationRequest) -> Any:
        await asyncio.sleep(0.05)
        async for message in finishes(replicas, request):
            yield message

    ride, _ = ride_with(comes_late, id="job_a", max_wait=0.01)
    assert ride.outcome == "finished"


@pytest.mark.parametrize("by_caller", [True, False], ids=["gone", "cancelled"])
def test_a_request_that_is_cancelled_leaves_its_replica(by_caller: bool) -> None:
    async def cancel() -> None:
        replicas = FakeReplicas(hangs)
        client = create_client(replicas)
        ride = client.submit(a_request())
        await ride.reach(ride.boarded)
        assert client.pending_rows == 1
        if by_caller:
            ride.answer.cancel()
        else:
            assert client.cancel("a")
            assert isinstance(ride.answer.exception(), RequestCancelled)
        for _ in range(5):
            await asyncio.sleep(0)
        assert replicas.closed == 1
        assert (client.pending_rows, len(client.rides)) == (0, 0)
        assert not client.cancel("a")

    asyncio.run(cancel())


def test_what_replicas_report_is_seen_in_the_ride_and_told_to_listeners() -> None:
    async def watch() -> None:
        client = create_client(FakeReplicas(hangs))
        heard: list[float] = []
        client.listen(lambda activity: heard.append(activity.backlog_seconds))
        ride = client.submit(a_request())
        await ride.reach(ride.boarded)
        assert (ride.ticks, ride.steps, ride.due is not None) == (1, [2], True)
        assert heard == [2.0]
        await client.close()
        assert isinstance(ride.answer.exception(), Unavailable)
        assert client.activity.backlog_seconds == 0

    asyncio.run(watch())


def test_a_client_that_drains_takes_no_more_and_waits_for_the_rest() -> None:
    async def drain() -> None:
        client = create_client(FakeReplicas(finishes))
        ride = client.submit(a_request())
        await client.drain(60)
        assert ride.outcome == "finished"
        with pytest.raises(Unavailable):
            client.submit(a_request("b"))

    asyncio.run(drain())


def test_of_all_replicas_that_are_heard_of_the_least_backlog_counts() -> None:
    sightings = Sightings()
    first, second = report("a").activity, report("b", backlog=3.0).activity
    assert sightings.add("first", first, now=0.0).backlog_seconds == 2.0
    assert sightings.add("second", second, now=1.0).backlog_seconds == 2.0
    assert sightings.add("second", second, now=1.0).ticks[0].worker == 1
    assert sightings.add("second", second, now=FORGET_SECONDS).backlog_seconds == 3.0
    assert sightings.add("third", first, now=FORGET_SECONDS).ticks[0].worker == 0
