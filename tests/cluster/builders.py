"""Builders for the tests of clusters: replicas that are not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from chairlift.cluster.client import ReplicaLost
from chairlift.cluster.messages import FromReplica, Report, decode_request, encode
from chairlift.engine.messages import Activity, Finished, Rider, Tick, Timings
from chairlift.request import GenerationRequest, RowId
from tests.builders import create_card

Script = Callable[["FakeReplicas", GenerationRequest], AsyncGenerator[FromReplica]]


class FakeReplicas:
    """Replicas that do what the scripts say: one for each call, the last one for all that follow.

    Args:
        *scripts: Say what is yielded for a request.
    """

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self.calls: list[GenerationRequest] = []
        self.closed = 0
        """Calls that have ended, for whatever reason."""

    async def generate(self, request: bytes, front_end: str) -> AsyncGenerator[bytes]:
        decoded = decode_request(request)
        self.calls.append(decoded)
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        try:
            async for message in script(self, decoded):
                yield encode(message)
        finally:
            self.closed += 1

    async def describe(self) -> bytes:
        return encode(create_card())


async def finishes(replicas: FakeReplicas, request: GenerationRequest) -> Any:
    """A replica that is done at once."""
    yield report(request.id)
    yield finished(request.id)


async def is_lost(replicas: FakeReplicas, request: GenerationRequest) -> Any:
    """A replica that dies with the request aboard."""
    yield report(request.id)
    raise ReplicaLost("the actor died")


async def hangs(replicas: FakeReplicas, request: GenerationRequest) -> Any:
    """A replica that is never done."""
    yield report(request.id)
    await asyncio.Event().wait()


async def is_absent(replicas: FakeReplicas, request: GenerationRequest) -> Any:
    """No replica takes it."""
    await asyncio.Event().wait()
    yield report(request.id)


def finished(request_id: str) -> Finished:
    timings = Timings(queue_s=0, encode_s=0, denoise_s=0, decode_s=0, total_s=0, steps=1)
    return Finished(request_id=request_id, images=[b"a picture"], timings=timings)


def report(request_id: str, replica: str = "first", backlog: float = 2.0) -> Report:
    """One tick of a request."""
    tick = Tick(
        seconds=0.1,
        width=64,
        height=64,
        frames=1,
        entries=1,
        riders=[Rider(row=RowId(request_id, 0), step=0, evaluations=5)],
    )
    activity = Activity(
        ticks=[tick], running=1, waiting=0, backlog_seconds=backlog, eta_s={request_id: 0.5}
    )
    return Report(replica=replica, activity=activity)
