"""A front end's side of a cluster: every request that is owed, wherever it is, and what has been
said of it.

To the routes it is what :class:`~chairlift.engine.client.EngineClient` is. It knows no Ray: how a
replica is found and spoken to is the business of :class:`Replicas`. A request whose replica is lost
is played again by another, from its seed, so the caller sees a delay and the same picture.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import uuid
from collections.abc import AsyncGenerator
from contextvars import Context
from typing import Protocol

from chairlift.card import ModelCard
from chairlift.cluster.messages import (
    FromReplica,
    Report,
    decode_card,
    decode_from_replica,
    encode,
)
from chairlift.cluster.sightings import Sightings
from chairlift.engine.messages import IDLE, Accepted, Failed, Finished, Preview
from chairlift.engine.ride import Ride
from chairlift.engine.ride_keeper import RideKeeper
from chairlift.errors import (
    REQUEST_ERRORS,
    EngineCrash,
    GenerationFailed,
    QueueFull,
    RequestError,
    Unavailable,
    Unsupported,
)
from chairlift.request import GenerationRequest

logger = logging.getLogger(__name__)

MAX_LOSSES = 8
"""A request whose replicas were lost this often fails."""
FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 5.0
RETRY_SECONDS = 10
"""When a caller who found no replica should come again."""


class ReplicaLost(Exception):
    """A replica has died, is shutting down, or can't be reached; another may do better."""


class Replicas(Protocol):
    """How replicas are spoken to."""

    def generate(self, request: bytes, front_end: str) -> AsyncGenerator[bytes]:
        """See :meth:`chairlift.cluster.replica.EngineReplica.generate`; closing it cancels.

        Raises:
            ReplicaLost: The replica is lost.
            RequestError: No replica takes the request.
        """

    async def describe(self) -> bytes:
        """The card of the model; waits for a replica.

        Raises:
            ReplicaLost: The replica is lost.
        """


class ClusterClient(RideKeeper):
    """All replicas, and the requests that they owe this front end.

    Args:
        replicas: How they are spoken to.
        policy: In which order they serve.
        max_wait: Seconds that a request waits for a replica that takes it.
        front_ends: How many there are, this one among them.
    """

    def __init__(
        self, replicas: Replicas, *, policy: str, max_wait: float, front_ends: int = 1
    ) -> None:
        super().__init__()
        self._replicas = replicas
        self._max_wait = max_wait
        self._front_ends = front_ends
        self._name = uuid.uuid4().hex
        self._card: ModelCard | None = None
        self._sightings = Sightings()
        self.policy = policy
        """In which order requests are served."""
        self.failure: str | None = None
        """Always None: replicas that fail are Serve's to replace."""
        self.silent_seconds = 0.0
        """Always 0: whether an engine is silent is known where it is."""
        self.worker_pids: tuple[int, ...] = ()
        """Always empty: the engines are Serve's processes."""

    async def start(self) -> ModelCard:
        """Wait until there is a replica, however long its model takes to be loaded."""
        backoff = FIRST_BACKOFF_SECONDS
        while self._card is None:
            try:
                self._card = decode_card(await self._replicas.describe())
            except ReplicaLost as error:
                logger.warning("no replica yet: %s", error)
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, MAX_BACKOFF_SECONDS)
        return self._card

    async def close(self) -> None:
        """What isn't finished fails with Unavailable."""
        self.is_closed, self.takes_requests = True, False
        self._abandon_all()
        await asyncio.sleep(0)  # They are forgotten.
        self._report(IDLE)

    # ------------------------------------------------------------------ what is asked

    @property
    def card(self) -> ModelCard:
        """What the model can do; after :meth:`start`."""
        if self._card is None:
            raise Unavailable("the model is being loaded")
        return self._card

    @property
    def is_ready(self) -> bool:
        """Whether there was a replica; if there is none now, a request brings one about."""
        return self._card is not None

    # ------------------------------------------------------------------ what is to be done

    def submit(self, request: GenerationRequest) -> Ride:
        """Hand a request to a replica: it rides from here on, until its answer is done.

        Args:
            request: Its id is like no other's.

        Raises:
            Unavailable: Requests aren't taken any more. Every other error comes from the answer.
        """
        self._check_open()
        encode(request)  # What can't be sent isn't accepted.
        ride = self._accept(request, lambda ride: carrying.cancel())
        # Not in the context of the caller, whose end would be that of its calls to replicas.
        carrying = asyncio.create_task(self._carry(ride), context=Context())
        return ride

    def cancel(self, request_id: str) -> bool:
        """End a request, which fails with RequestCancelled; whether it was here.

        Raises:
            Unsupported: It isn't here, but may be at another front end.
        """
        if request_id not in self.rides and self._front_ends > 1:
            raise Unsupported(
                f"this front end has no such request, and it is one of {self._front_ends}; to end "
                "a request, close its connection"
            )
        return super().cancel(request_id)

    def set_policy(self, name: str) -> None:
        """Not here: replicas that come later wouldn't know."""
        raise Unsupported("a cluster's policy is that of its config; deploy it again with another")

    # ------------------------------------------------------------------ the way of a request

    async def _carry(self, ride: Ride) -> None:
        """Have a request done by one replica, or by the next if that is lost."""
        try:
            while not ride.answer.done():
                try:
                    await self._ride(ride)
                except ReplicaLost as error:
                    self._count_loss(ride, error)
                    backoff = FIRST_BACKOFF_SECONDS * 2**ride.crashes
                    await asyncio.sleep(min(backoff, MAX_BACKOFF_SECONDS))
                except QueueFull:
                    if not _was_let_in(ride):
                        raise
                    await asyncio.sleep(MAX_BACKOFF_SECONDS)
        except RequestError as error:
            ride.fail(error)
        except Exception:
            logger.exception("%s can't be done", ride.request.id)
            ride.fail(GenerationFailed("an internal error has occurred"))

    async def _ride(self, ride: Ride) -> None:
        """Have a request done by one replica.

        Raises:
            ReplicaLost: It ended before the request did.
            QueueFull: All are full, and as many wait already as may.
            Unavailable: There is no replica, or all are full, for longer than anybody may wait.
        """
        # Jobs have all the time in the world.
        wait = math.inf if ride.is_job else self._max_wait
        messages = self._replicas.generate(encode(ride.submission), self._name)
        async with contextlib.aclosing(messages):
            try:
                async with asyncio.timeout(None if wait == math.inf else wait):
                    first = await anext(messages, None)
            except TimeoutError:
                raise Unavailable(
                    f"no replica could take the request within {wait:g} s",
                    retry_after=RETRY_SECONDS,
                ) from None
            if first is not None:
                self._receive(ride, decode_from_replica(first))
                async for message in messages:
                    self._receive(ride, decode_from_replica(message))
        if not ride.answer.done():
            raise ReplicaLost("it has said nothing more")

    def _count_loss(self, ride: Ride, error: ReplicaLost) -> None:
        ride.crashes += 1
        ride.restart()
        self.on_restart()
        logger.warning("%s is played again: its replica is lost: %s", ride.request.id, error)
        if ride.crashes == MAX_LOSSES:
            raise EngineCrash(f"{MAX_LOSSES} replicas were lost that had this request")

    def _receive(self, ride: Ride, message: FromReplica) -> None:
        """A replica has said something on the stream of a request."""
        if ride.answer.done():
            return
        match message:
            case Accepted(eta_s=eta_s):
                ride.accept(eta_s, asyncio.get_running_loop().time())
            case Preview():
                ride.show(message)
            case Finished():
                ride.finish(message)
            case Failed(code=Unavailable.code, message=text):
                raise ReplicaLost(text)
            case Failed(code=code, message=text, param=param):
                ride.fail(REQUEST_ERRORS[code](text, param=param))
            case Report(replica=replica, activity=activity):
                now = asyncio.get_running_loop().time()
                self._report(self._sightings.add(replica, activity, now))


def _was_let_in(ride: Ride) -> bool:
    """Whether its caller has been told that it is accepted, or may have been; then it isn't refused
    any more, but waits for room.
    """
    return ride.is_job or ride.crashes > 0
