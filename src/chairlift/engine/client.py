"""The front end's side of the engine: every request that is owed, and what has been said of it.

It lives on the event loop and imports no torch. Every request is kept until it ends; if the worker
dies, a new one is started and gets all of them again. A request starts from its seed, so the
caller sees a delay and the same picture.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import msgspec

from chairlift.card import ModelCard
from chairlift.engine.messages import (
    Accepted,
    Activity,
    Cancel,
    Failed,
    Finished,
    FromEngine,
    Loading,
    Preview,
    Ready,
    SetPolicy,
    Submit,
)
from chairlift.engine.ride import Ride
from chairlift.engine.supervisor import Supervisor
from chairlift.engine.worker_config import WorkerConfig
from chairlift.errors import REQUEST_ERRORS, EngineCrash, RequestCancelled, Unavailable
from chairlift.request import GenerationRequest

logger = logging.getLogger(__name__)

SUSPECT_CRASHES = 2
"""A request that was there when the worker died this often is run alone, before all others."""
HANG_SECONDS = 120.0
"""A worker that has work and says nothing for so long is ended and replaced."""

IDLE = Activity(ticks=[], running=0, waiting=0, backlog_seconds=0.0)


class EngineClient:
    """One worker process and the requests that it owes.

    Args:
        config: For the worker.
        on_loading: Told what the worker is loading.
        hang_seconds: How long the worker may be silent while it has work.
    """

    def __init__(
        self,
        config: WorkerConfig,
        on_loading: Callable[[Loading], None] = lambda message: None,
        hang_seconds: float = HANG_SECONDS,
    ) -> None:
        self.config = config
        """What the next worker is started with."""
        self.loading = on_loading
        self._supervisor = Supervisor(self, hang_seconds)
        self._rides: dict[str, Ride] = {}
        self._sent: set[str] = set()
        """The requests that the present worker has."""
        self._alone: str | None = None
        """The request that the present worker has to itself."""
        self._listeners: set[Callable[[Activity], None]] = set()
        self.activity = IDLE
        """The last report."""
        self.on_restart: Callable[[], None] = lambda: None
        """Called when a worker has died and is going to be replaced."""
        self.on_end: list[Callable[[Ride], None]] = []
        """Called with every ride that has ended, whose answer is done; in the context in which it
        was submitted."""
        self.takes_requests = True
        """Until it drains or is closed."""
        self.is_closed = False
        """Whether :meth:`close` was called."""

    async def start(self) -> Ready:
        """Start the worker and wait until it is ready.

        Raises:
            ConfigurationError: It can't start; the message says why.
        """
        try:
            return await self._supervisor.start()
        except BaseException:
            await self.close()
            raise

    async def drain(self, seconds: float) -> None:
        """Take no more requests, and wait until every accepted one has ended, at most this long."""
        self.takes_requests = False
        answers = [ride.answer for ride in self._rides.values()]
        if answers:
            await asyncio.wait(answers, timeout=seconds)

    async def close(self) -> None:
        """End the worker; what isn't finished fails with Unavailable."""
        self.is_closed, self.takes_requests = True, False
        await self._supervisor.close()
        for ride in list(self._rides.values()):
            if not ride.answer.done():
                ride.answer.set_exception(Unavailable("the server is shutting down"))
        self._report(IDLE)

    # ------------------------------------------------------------------ what is asked

    @property
    def card(self) -> ModelCard:
        """What the model can do; after :meth:`start`."""
        if self._supervisor.ready is None:
            raise Unavailable("the model is being loaded")
        return self._supervisor.ready.card

    @property
    def is_ready(self) -> bool:
        """Whether a worker takes requests now."""
        return self._supervisor.is_ready

    @property
    def failure(self) -> str | None:
        """Why the last worker could not become ready; None if it could."""
        return self._supervisor.failure

    @property
    def silent_seconds(self) -> float:
        """For how long a worker that has work has said nothing."""
        return self._supervisor.silent_seconds

    @property
    def worker_pid(self) -> int | None:
        """The process id of the worker, while there is one."""
        return self._supervisor.worker_pid

    @property
    def has_work(self) -> bool:
        """Whether the worker owes anything."""
        return bool(self._sent)

    @property
    def pending_rows(self) -> int:
        """Rows that were accepted and have not ended."""
        return sum(ride.request.n for ride in self._rides.values())

    @property
    def rides(self) -> Mapping[str, Ride]:
        """Requests that were accepted and have not ended, in the order in which they came."""
        return MappingProxyType(self._rides)

    @property
    def policy(self) -> str:
        """In which order requests are served."""
        return self.config.policy

    # ------------------------------------------------------------------ what is to be done

    def submit(self, request: GenerationRequest) -> Ride:
        """Hand a request to the engine: it rides from here on, until its answer is done.

        Args:
            request: Its id is like no other's.

        Raises:
            Unavailable: Requests aren't taken any more. Every other error comes from the answer.
        """
        if not self.takes_requests:
            raise Unavailable("the server is shutting down")
        loop = asyncio.get_running_loop()
        ride = Ride(request, loop.create_future(), loop.time())
        self._rides[request.id] = ride
        ride.answer.add_done_callback(partial(self._forget, request_id=request.id))
        if self.is_ready and self._alone is None:
            self._send(ride)
        return ride

    def cancel(self, request_id: str) -> bool:
        """End a request, which fails with RequestCancelled; whether it was here."""
        ride = self._rides.get(request_id)
        if ride is None or ride.answer.done():
            return False
        ride.answer.set_exception(RequestCancelled("the request was cancelled"))
        return True

    def set_policy(self, name: str) -> None:
        """Serve in the order of this policy from the next tick on, also in workers to come."""
        self.config = msgspec.structs.replace(self.config, policy=name)
        self._supervisor.send(SetPolicy(name=name))

    def listen(self, listener: Callable[[Activity], None]) -> Callable[[], None]:
        """Call ``listener`` with every report from now on; returns what ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def _send(self, ride: Ride) -> None:
        if not self._sent:
            self._supervisor.expect()
        self._sent.add(ride.request.id)
        self._supervisor.send(Submit(request=ride.request))

    def _forget(self, answer: asyncio.Future[Finished], request_id: str) -> None:
        ride = self._rides.pop(request_id)
        if answer.cancelled() or isinstance(answer.exception(), RequestCancelled | Unavailable):
            self._supervisor.send(Cancel(request_id=request_id))
        self._sent.discard(request_id)
        if self._alone == request_id:
            self._send_all()
        for listener in self.on_end:
            listener(ride)

    # ------------------------------------------------------------------ what the supervisor says

    def up(self) -> None:
        """A new worker: it gets all that the last one owed."""
        for ride in self._rides.values():
            ride.restart()
        self._send_all()

    def down(self) -> None:
        """The worker has ended. Who had it to himself then is to blame, and nobody else; who was
        there with others is suspected after some times.
        """
        self.on_restart()
        culprit = self._rides.get(self._alone) if self._alone else None
        if culprit is not None and not culprit.answer.done():
            self._alone = None
            culprit.answer.set_exception(
                EngineCrash(
                    f"the engine died {culprit.crashes + 1} times with this request, the last time "
                    "with nothing else"
                )
            )
            for ride in self._rides.values():
                ride.crashes = 0
        else:
            for id in self._sent & self._rides.keys():
                self._rides[id].crashes += 1
        self._sent.clear()
        self._report(IDLE)

    def _send_all(self) -> None:
        """Everything that the worker hasn't got; but first, one by one, who is suspected. Those
        who have been in a tick are suspected first.
        """
        waiting = [ride for ride in self._rides.values() if not ride.answer.done()]
        suspects = [ride for ride in waiting if ride.crashes >= SUSPECT_CRASHES]
        if suspects:
            suspect = max(suspects, key=lambda ride: ride.ticks > 0)
            self._alone = suspect.request.id
            logger.warning("%s is run alone: the engine died with it", self._alone)
            self._send(suspect)
            return
        self._alone = None
        for ride in waiting:
            if ride.request.id not in self._sent:
                self._send(ride)

    def receive(self, message: FromEngine) -> None:
        """The worker has said something."""
        match message:
            case Accepted(request_id=request_id, eta_s=eta_s):
                if ride := self._rides.get(request_id):
                    ride.accept(eta_s, asyncio.get_running_loop().time())
            case Preview(row=(request_id, _)):
                if ride := self._rides.get(request_id):
                    ride.show(message)
            case Finished(request_id=request_id):
                ride = self._rides.get(request_id)
                if ride is not None and not ride.answer.done():
                    ride.answer.set_result(message)
            case Failed(request_id=request_id, code=code, message=text, param=param):
                ride = self._rides.get(request_id)
                if ride is not None and not ride.answer.done():
                    ride.answer.set_exception(REQUEST_ERRORS[code](text, param=param))
            case Activity():
                self._report(message)

    def _report(self, activity: Activity) -> None:
        self.activity = activity
        now = asyncio.get_running_loop().time()
        for request_id, eta_s in activity.eta_s.items():
            if ride := self._rides.get(request_id):
                ride.due = now + eta_s
        for tick in activity.ticks:
            for rider in tick.riders:
                if ride := self._rides.get(rider.row.request_id):
                    ride.advance(rider)
            for request_id in {rider.row.request_id for rider in tick.riders}:
                if ride := self._rides.get(request_id):
                    ride.count_tick(len(tick.riders))
        for listener in list(self._listeners):
            try:
                listener(activity)
            except Exception:  # What is wrong with one of them isn't the engine's fault.
                logger.exception("a report could not be passed on")
