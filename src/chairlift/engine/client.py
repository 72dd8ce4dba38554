"""The front end's side of the engine: every request that is owed, and what has been said of it.

It lives on the event loop and imports no torch. Every request is kept until it ends; if a worker
dies, another one gets what it had. A request starts from its seed, so the caller sees a delay and
the same picture.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from chairlift.card import ModelCard
from chairlift.engine.berth import Berth
from chairlift.engine.dispatcher import Dispatcher
from chairlift.engine.messages import (
    Accepted,
    Activity,
    Devices,
    Failed,
    Finished,
    FromEngine,
    Loading,
    Preview,
    Ready,
    Submit,
    Tick,
    encode,
)
from chairlift.engine.ride import Ride
from chairlift.engine.ride_keeper import RideKeeper
from chairlift.engine.worker_config import WorkerConfig
from chairlift.errors import REQUEST_ERRORS, RequestCancelled, Unavailable
from chairlift.request import GenerationRequest

logger = logging.getLogger(__name__)

HANG_SECONDS = 120.0
"""A worker that has work and says nothing for so long is ended and replaced."""


class EngineClient(RideKeeper):
    """The worker processes and the requests that they owe.

    Args:
        config: For the workers, but for their numbers.
        on_loading: Told what the first worker is loading.
        hang_seconds: How long a worker may be silent while it has work.
        workers: How many there are, at least 1; None is one for each device.
    """

    def __init__(
        self,
        config: WorkerConfig,
        on_loading: Callable[[Loading], None] = lambda message: None,
        hang_seconds: float = HANG_SECONDS,
        workers: int | None = 1,
    ) -> None:
        super().__init__()
        self.config = msgspec.structs.replace(config, workers=workers or 1)
        """What the next worker is started with, but for its number."""
        self._on_loading = on_loading
        self._hang_seconds = hang_seconds
        self._workers = workers
        self._devices: asyncio.Future[int] | None = None
        """How many there are, as soon as the first worker has said so."""
        self._card: ModelCard | None = None
        self._dispatcher = Dispatcher(self._rides)

    async def start(self) -> Ready:
        """Start the workers and wait until all are ready; what the first has said.

        Raises:
            ConfigurationError: One can't start; the message says why.
        """
        self._devices = asyncio.get_running_loop().create_future()
        starting = [self._start_worker()]
        try:
            count = self._workers or await self._count_devices(starting[0])
            starting += [self._start_worker() for _ in range(1, count)]
            ready, *_ = await asyncio.gather(*starting)
        except BaseException:
            for task in starting:
                task.cancel()
            await self.close()
            raise
        if count > 1:
            logger.info("%d workers are ready", count)
        self._card = ready.card
        return ready

    def _start_worker(self) -> asyncio.Task[Ready]:
        berth = Berth(len(self._berths), self, self._hang_seconds)
        self._berths.append(berth)
        return asyncio.create_task(berth.supervisor.start())

    async def _count_devices(self, starting: asyncio.Task[Ready]) -> int:
        """What the first worker says of them; 1 if it can't start."""
        assert self._devices is not None
        either: set[asyncio.Future[Any]] = {starting, self._devices}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return self._devices.result() if self._devices.done() else 1

    async def close(self) -> None:
        """End the workers; what isn't finished fails with Unavailable."""
        self.is_closed, self.takes_requests = True, False
        await asyncio.gather(*(berth.supervisor.close() for berth in self._berths))
        self._abandon_all()
        self._add_up([], {})

    # ------------------------------------------------------------------ what is asked

    @property
    def card(self) -> ModelCard:
        """What the model can do; after :meth:`start`."""
        if self._card is None:
            raise Unavailable("the model is being loaded")
        return self._card

    @property
    def is_ready(self) -> bool:
        """Whether any worker takes requests now."""
        return any(berth.supervisor.is_ready for berth in self._berths)

    @property
    def failure(self) -> str | None:
        """Why no worker could become ready again; None while there is one, or may be soon."""
        failures = [berth.supervisor.failure for berth in self._berths]
        return None if None in failures or not failures else failures[0]

    @property
    def silent_seconds(self) -> float:
        """For how long a worker that loads or has work has said nothing; the longest of all."""
        return max((berth.supervisor.silent_seconds for berth in self._berths), default=0.0)

    @property
    def worker_pids(self) -> list[int]:
        """The process ids of the workers that there are now."""
        pids = [berth.supervisor.worker_pid for berth in self._berths]
        return [pid for pid in pids if pid is not None]

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
        self._check_open()
        frame = encode(Submit(request=request))  # What can't be sent isn't accepted.
        ride = self._accept(request, self._forget)
        self._dispatcher.send(ride, frame)
        return ride

    def set_policy(self, name: str) -> None:
        """Serve in the order of this policy from the next tick on, also in workers to come."""
        self.config = msgspec.structs.replace(self.config, policy=name)
        for berth in self._berths:
            berth.set_policy(name)

    @property
    def _berths(self) -> list[Berth]:
        return self._dispatcher.berths

    def _forget(self, ride: Ride) -> None:
        answer = ride.answer
        given_up = answer.cancelled() or isinstance(
            answer.exception(), RequestCancelled | Unavailable
        )
        self._dispatcher.forget(ride, cancel=given_up)

    # ------------------------------------------------------------------ what the workers say

    def loading(self, berth: Berth, message: Loading) -> None:
        """A worker is loading; all load the same."""
        if berth.number == 0:
            self._on_loading(message)

    def up(self, berth: Berth) -> None:
        """A new worker: it gets what nobody has."""
        self._dispatcher.dispatch()

    def down(self, berth: Berth) -> None:
        """A worker has ended: others get what it had, as soon as there are any."""
        self.on_restart()
        self._dispatcher.lose(berth)
        self._add_up([], {})

    def receive(self, berth: Berth, message: FromEngine) -> None:
        """A worker has said something."""
        match message:
            case Devices(count=count):
                if self._devices is not None and not self._devices.done():
                    self._devices.set_result(count)
            case Accepted(request_id=request_id, eta_s=eta_s):
                if ride := berth.rides.get(request_id):
                    ride.accept(eta_s, asyncio.get_running_loop().time())
            case Preview(row=(request_id, _)):
                if ride := berth.rides.get(request_id):
                    ride.show(message)
            case Finished(request_id=request_id):
                if ride := berth.rides.get(request_id):
                    ride.finish(message)
            case Failed(request_id=request_id, code=code, message=text, param=param):
                if ride := berth.rides.get(request_id):
                    ride.fail(REQUEST_ERRORS[code](text, param=param))
            case Activity():
                self._dispatcher.learn(message.ticks)
                self._add_up(message.ticks, message.eta_s)

    def _add_up(self, ticks: list[Tick], eta_s: dict[str, float]) -> None:
        """Report what has changed, with how things stand with all workers: the backlog is that of
        the worker that has least, which the next request would go to.
        """
        reports = [berth.activity for berth in self._berths]
        takers = [berth.activity for berth in self._dispatcher.open_berths]
        self._report(
            Activity(
                ticks=ticks,
                running=sum(report.running for report in reports),
                waiting=sum(report.waiting for report in reports),
                backlog_seconds=min(
                    (one.backlog_seconds for one in takers or reports), default=0.0
                ),
                eta_s=eta_s,
            )
        )
