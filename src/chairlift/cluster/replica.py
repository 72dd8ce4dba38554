"""A replica: one engine, its worker process, and the streams of messages to the front ends.

It knows nothing of HTTP. Serve calls its methods by their names.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

from chairlift.cluster.load import Load
from chairlift.cluster.messages import decode_request, encode
from chairlift.cluster.reports import Reports, Stream
from chairlift.engine.client import EngineClient
from chairlift.engine.messages import Accepted, Failed, Finished
from chairlift.engine.ride import Ride
from chairlift.engine.worker_config import WorkerConfig
from chairlift.errors import RequestCancelled, RequestError, Unavailable, UnknownModel
from chairlift.request import GenerationRequest

HEARTBEAT_GRACE_SECONDS = 30.0
"""How much longer than its bound an engine may be silent before the whole replica is replaced: its
supervisor has had the time to do something."""


class EngineReplica:
    """One engine.

    Args:
        worker: For the engine.
        hang_timeout: Seconds that the engine may be silent while it has work.
    """

    def __init__(self, worker: WorkerConfig, hang_timeout: float) -> None:
        self.client = EngineClient(worker, hang_seconds=hang_timeout)
        """The engine's."""
        self._max_silence = hang_timeout + HEARTBEAT_GRACE_SECONDS
        self._load = Load(self.client)
        self._reports = Reports(replica=uuid.uuid4().hex)
        self.client.listen(self._reports.add)

    async def start(self) -> None:
        """Start the engine, and wait until it is ready.

        Raises:
            ConfigurationError: It can't start.
        """
        await self.client.start()

    async def close(self) -> None:
        """End the engine; what isn't finished is for another replica."""
        await self.client.close()

    # ------------------------------------------------------------------ what front ends ask

    async def describe(self) -> bytes:
        """The model's card."""
        return encode(self.client.card)

    async def generate(self, request: bytes, front_end: str) -> AsyncIterator[bytes]:
        """Make a request's pictures.

        Args:
            request: A :class:`~chairlift.request.GenerationRequest`.
            front_end: The name of who asks.

        Yields:
            Messages of :data:`~chairlift.cluster.messages.FromReplica`, of which the last is
            Finished or Failed. When nobody reads on, the request is cancelled.
        """
        try:
            ride = await self._submit(decode_request(request))
        except RequestError as error:
            yield encode(_failed(decode_request(request).id, error))
            return
        stream: Stream = asyncio.Queue()
        ride.listeners.add(stream.put_nowait)
        ride.answer.add_done_callback(lambda answer: stream.put_nowait(None))
        accepting = asyncio.create_task(_tell_accepted(ride, stream))
        try:
            with self._reports.on(stream, front_end):
                while (message := await stream.get()) is not None:
                    yield encode(message)
                self._reports.send(stream, front_end)
                yield encode(stream.get_nowait())
            yield encode(_end(ride))
        finally:
            accepting.cancel()
            ride.answer.cancel()

    async def _submit(self, request: GenerationRequest) -> Ride:
        if request.model != self.client.card.id:
            raise UnknownModel(
                f"model is {request.model!r}; the model that is served is {self.client.card.id!r}",
                param="model",
            )
        # The front end has lost sight of it and sends it again, perhaps to where it was.
        while request.id in self.client.rides:
            self.client.cancel(request.id)
            await asyncio.sleep(0)
        return self.client.submit(request)

    # ------------------------------------------------------------------ what Serve asks

    def check_health(self) -> None:
        """Raise if the engine doesn't run and can't be made to run here."""
        if self.client.failure is not None:
            raise Unavailable(f"the engine can't be started again: {self.client.failure}")
        if self.client.silent_seconds > self._max_silence:
            raise Unavailable(
                f"the engine has work and has said nothing for {self.client.silent_seconds:.0f} s"
            )

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What the autoscaler goes by."""
        return {"backlog_seconds": self.client.activity.backlog_seconds}

    def record_routing_stats(self) -> dict[str, Any]:
        """What the router goes by."""
        return self._load.describe()


async def _tell_accepted(ride: Ride, stream: Stream) -> None:
    await ride.reach(ride.accepted)
    if ride.predicted_s is not None:
        stream.put_nowait(Accepted(request_id=ride.request.id, eta_s=ride.predicted_s))


def _end(ride: Ride) -> Finished | Failed:
    if ride.answer.cancelled():
        return _failed(ride.request.id, RequestCancelled("the request was cancelled"))
    error = ride.answer.exception()
    if error is None:
        return ride.answer.result()
    if not isinstance(error, RequestError):
        error = RequestError("an internal error has occurred")
    return _failed(ride.request.id, error)


def _failed(request_id: str, error: RequestError) -> Failed:
    return Failed(request_id=request_id, code=error.code, message=error.message, param=error.param)
