"""Calls through a Serve handle: Ray's errors are ours, and who reads no more cancels."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chairlift.cluster.client import ReplicaLost
from chairlift.errors import QueueFull

with warnings.catch_warnings():
    # Serve's config is declared as older versions of pydantic had it.
    warnings.simplefilter("ignore")
    from ray.exceptions import ActorDiedError, ObjectLostError, RayTaskError
    from ray.serve.exceptions import BackPressureError, RequestCancelledError

    from chairlift.cluster.handle import ServeReplicas


class Handle:
    """A handle whose calls yield two messages, and then fail, if ``error`` is given."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.cancelled = 0

    def options(self, *, method_name: str, stream: bool) -> Handle:
        assert (method_name, stream) == ("generate", True)
        return self

    @property
    def describe(self) -> Handle:
        return self

    def remote(self, *arguments: object) -> Handle:
        return self

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"first"
        yield b"second"
        if self._error:
            raise self._error

    def __await__(self) -> Any:
        return self._describe().__await__()

    async def _describe(self) -> bytes:
        if self._error:
            raise self._error
        return b"a card"

    def cancel(self) -> None:
        """As a response of Serve's it raises what has ended the call."""
        self.cancelled += 1
        if self._error:
            raise self._error


async def read(handle: Handle) -> list[bytes]:
    return [message async for message in ServeReplicas(handle).generate(b"", "front end")]


def test_a_call_that_ends_is_not_cancelled() -> None:
    handle = Handle()
    assert asyncio.run(read(handle)) == [b"first", b"second"]
    assert handle.cancelled == 0


@pytest.mark.parametrize("error", [None, ActorDiedError()], ids=["alive", "dead"])
def test_a_call_that_nobody_reads_any_more_is_cancelled(error: Exception | None) -> None:
    handle = Handle(error)

    async def stop() -> None:
        stream = ServeReplicas(handle).generate(b"", "front end")
        assert await anext(stream) == b"first"
        await stream.aclose()

    asyncio.run(stop())
    assert handle.cancelled == 1


@pytest.mark.parametrize(
    "error",
    [ActorDiedError(), ObjectLostError("0", None, ""), RequestCancelledError()],
    ids=lambda error: type(error).__name__,
)
def test_what_ends_a_replica_loses_it(error: Exception) -> None:
    with pytest.raises(ReplicaLost):
        asyncio.run(read(Handle(error)))

    async def describe() -> None:
        await ServeReplicas(Handle(error)).describe()

    with pytest.raises(ReplicaLost):
        asyncio.run(describe())


def test_no_room_anywhere_is_a_full_queue_with_a_time_to_come_again() -> None:
    error = BackPressureError(num_queued_requests=3, max_queued_requests=3)
    with pytest.raises(QueueFull, match="3 requests wait for one, of at most 3") as caught:
        asyncio.run(read(Handle(error)))
    assert caught.value.retry_after


def test_what_our_code_raises_there_is_no_loss_of_the_replica() -> None:
    error = RayTaskError("generate", "", ZeroDivisionError())
    with pytest.raises(RayTaskError):
        asyncio.run(read(Handle(error)))
